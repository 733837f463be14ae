"""Pure rules: from numbers to verdicts, without pytest, files or processes."""

"""From numbers to verdicts: pure rules, and what a test or a run fails for."""

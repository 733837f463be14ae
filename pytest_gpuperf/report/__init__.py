"""What people read: the summary at the end of a run, and the message of a red test."""

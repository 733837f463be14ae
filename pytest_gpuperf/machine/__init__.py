"""The machine: what it is, whether it is fit to measure, and the lock on its device."""

"""The machine: its description, its fitness to measure, and the lock on its device."""

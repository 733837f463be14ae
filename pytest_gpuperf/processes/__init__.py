"""Child pytest processes, and the checkouts that they run in."""

"""GPU performance regression tests for pytest: a red test means a real regression."""

__version__ = "0.1.0"

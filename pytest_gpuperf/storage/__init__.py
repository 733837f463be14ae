"""The files that are kept: baselines, calibrations, and their formats."""

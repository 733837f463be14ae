"""Other processes: replicas, recorded runs, other revisions, calibration."""

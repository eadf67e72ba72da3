"""Data to checkpoint: `python -m training fit FAMILY`."""

"""Checkpoint to release: `python -m export FAMILY`."""

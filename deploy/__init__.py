"""Release to running server: `python -m deploy up`."""

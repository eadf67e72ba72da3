"""The server that runs: where it is written down, and what any stage may read of it."""

"""A run: its folder, which one process has at a time, and what MLflow is told of it, now or later."""

"""The gateway as a process: workers, limits, drain."""

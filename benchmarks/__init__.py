"""Numbers: `python -m benchmarks perf`, and locustfile.py for Locust."""

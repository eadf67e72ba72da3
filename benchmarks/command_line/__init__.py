"""What the commands of `python -m benchmarks` take: a module for each room, and `options` that several have."""

"""The tuner: batch sizes, delays, instances, threads and queue limits, found on a real server."""

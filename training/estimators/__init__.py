"""Models that libraries of their own fit: how they are trained and tracked, and compared with each other."""

"""A decision on headers alone, for a proxy that carries the bytes."""

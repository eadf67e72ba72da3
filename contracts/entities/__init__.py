"""What callers of a model know, how the rest of its inputs is filled, and the tables that this is filled from."""

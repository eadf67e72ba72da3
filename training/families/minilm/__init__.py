"""Sentence embeddings: a text of at most 256 tokens to a unit vector of 384 numbers, near that of what means the same."""

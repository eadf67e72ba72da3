"""Sentence embeddings: a text to a unit vector of 384 numbers, near those of texts that mean the same."""

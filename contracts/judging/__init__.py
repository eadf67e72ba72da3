"""How good a network's answers are, and how much worse a variant of it may be."""

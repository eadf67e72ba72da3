"""What callers know becomes what a model takes, by the declaration and the tables of its release."""

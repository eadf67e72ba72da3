"""Python steps of a user's own around a network: pre- and post-processing, and the ensemble of all three."""

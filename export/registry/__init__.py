"""MLflow's model registry: what is registered, what leads back to its checkpoint, and what was approved for whom."""

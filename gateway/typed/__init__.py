"""The typed door: JSON, files and rows, validated against a model's own signature."""

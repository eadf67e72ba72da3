"""Data in stages, each a command that DVC runs when something it depends on has changed: see a family's dvc.yaml."""

"""A search for the parameters of a family's models: `python -m training sweep FAMILY`."""

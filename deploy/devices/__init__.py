"""The GPUs of a machine: what the driver says of them, and whether they can serve what is to be served."""

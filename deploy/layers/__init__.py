"""A model's own Python packages: what it asks for, locked, and installed for its processes alone."""

"""Peers: servers that people would take in place of this one, and the limits of the machine, in one run."""

"""Whose releases are served: what a signer's certificate has to be, and what a release has to be called."""

"""Prove that a release is served as it was published: what it is asked, and a server of its own to ask."""

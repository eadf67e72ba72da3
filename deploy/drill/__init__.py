"""Upgrade a server, harm it and kill parts of it, under load."""

"""Upgrade a server and kill parts of it, under load."""

"""How cost grows: with batch and image size, text length, models in a server, connections, versions in a repository."""

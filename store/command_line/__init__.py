"""`python -m store`: one module a command or two."""

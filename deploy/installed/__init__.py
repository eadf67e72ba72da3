"""What the pip-installed server is made of: a Python of this machine, its shared library, a backend directory."""

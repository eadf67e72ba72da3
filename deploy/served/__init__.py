"""What a server is given to serve: private copies of releases, verified, assembled into a repository of their own."""

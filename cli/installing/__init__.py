"""What is fetched: environments and their locks, files out of packages, digests of base images."""

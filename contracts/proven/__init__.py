"""What a manifest tells of proofs: gates, the variants that they are of, and figures."""

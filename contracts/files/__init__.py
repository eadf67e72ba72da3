"""Files: locks and files that appear whole, in folders that others may write to, and a spec as people write it."""

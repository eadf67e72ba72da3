"""Files in folders that others may write to: locks, and files that appear whole."""

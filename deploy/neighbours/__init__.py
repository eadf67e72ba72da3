"""Who else is on this machine: what other users may not take, read or pretend to be."""

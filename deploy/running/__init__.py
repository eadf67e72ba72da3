"""Keep a server up and look at it."""

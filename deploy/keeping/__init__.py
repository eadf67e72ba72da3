"""Keep a server up: load what loads, leave out what does not, replace what died, back off from what dies again."""

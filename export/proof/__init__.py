"""What a variant is held against, and what runs it: gates, contract, engine, runners."""

"""What an operator decides: files, environment, and where each value comes from."""

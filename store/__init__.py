"""What was asked, answered and found true: one store, never on a request's path."""

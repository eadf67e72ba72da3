"""What each step of a GPU day looks at."""

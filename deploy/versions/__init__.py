"""Change which versions a running server serves, without a dropped request."""

"""What becomes of a request: deadline, admission, circuit breaker, endpoint, arm."""

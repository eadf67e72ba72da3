"""One tritonserver: where it comes from, how it is started, what it is asked, what is written down of it."""

"""What is seen of the gateway: metrics, traces, log lines."""

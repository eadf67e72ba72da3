"""What the gateway costs a request, beside Triton alone and a proxy that asks the gateway."""

"""What the command line names."""

MODELS = ("small", "large", "text", "table")
PEERS = ("fastapi-inline", "fastapi-pool", "litserve", "bentoml", "ray", "mlserver")

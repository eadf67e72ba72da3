"""What the client library costs and gains."""

"""One Triton as the gateway speaks to it: connections, requests, signatures of its models."""

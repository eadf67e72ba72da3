"""Graphs trained elsewhere, each with what `python -m export --onnx` needs to prove them."""

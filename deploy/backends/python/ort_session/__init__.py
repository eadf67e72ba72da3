"""ONNX Runtime in a backend of ours: sessions, their settings, and values that numpy has no type for."""

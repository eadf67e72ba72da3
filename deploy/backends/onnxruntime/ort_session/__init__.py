"""What the onnxruntime backend alone has: sessions, their settings, and values that numpy has no type for."""

"""The raw door: the Open Inference Protocol with Triton's binary extension, its tensors untouched."""

"""TensorRT engines as files: what a plan says of itself, which GPU loads which file, and which TensorRT is here."""

"""FP16 and INT8 graphs from the FP32 one, and the search for an INT8 recipe."""

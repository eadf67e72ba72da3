"""Where graph, data and reference answers come from: a checkpoint, or a graph that was trained elsewhere."""

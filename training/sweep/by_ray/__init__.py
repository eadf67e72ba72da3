"""A search that Ray Tune carries out."""

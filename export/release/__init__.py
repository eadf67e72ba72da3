"""What becomes of proven variants: chosen, described, published, registered; and what is published already."""

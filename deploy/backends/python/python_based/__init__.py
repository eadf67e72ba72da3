"""What the Python-based backends share. In the server it lies in `backends/python`, which Triton puts on their path."""

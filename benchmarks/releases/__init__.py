"""What it costs to change which releases are served."""

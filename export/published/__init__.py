"""What is published already: listed, shown, verified, registered, sealed, removed."""

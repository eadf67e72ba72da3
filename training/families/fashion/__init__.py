"""Fashion-MNIST: 28×28 grey images of clothing, ten classes."""

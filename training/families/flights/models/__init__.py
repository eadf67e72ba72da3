"""What the estimators of flights are, and what they share with the perceptron: how numbers are scaled."""

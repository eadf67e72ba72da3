"""What the stages hand to each other. Standard library only; imports no stage."""

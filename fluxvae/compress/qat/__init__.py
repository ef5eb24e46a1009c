"""Training with the int8 arithmetic in the loop."""

"""Real images through every variant."""

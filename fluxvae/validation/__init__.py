"""Whether an artifact does what its network does, and what is inside it."""

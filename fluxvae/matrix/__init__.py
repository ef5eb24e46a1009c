"""Many cells at once: a matrix file, a run folder, every cell in a process of its own."""

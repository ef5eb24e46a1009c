"""A network to Core ML, through coremltools."""

"""The networks: a catalogue of them, their weights, and torch modules that run them."""

"""Decoders and encoders as plain modules, with upstream's state-dict names."""

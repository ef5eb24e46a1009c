"""A converted model on disk: save it, open it, run it."""

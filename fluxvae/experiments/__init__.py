"""Many recipes measured: cells, run by one engine."""

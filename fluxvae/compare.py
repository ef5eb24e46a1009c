"""Several recipes of one decoder in one table."""

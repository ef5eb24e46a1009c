"""The page and the tables of a matrix."""

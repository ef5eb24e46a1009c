"""The page and the tables of a round trip."""

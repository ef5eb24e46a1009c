"""Smaller weights and integer arithmetic: how they are found, written and checked."""

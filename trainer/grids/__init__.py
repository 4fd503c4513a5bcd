"""Grids: one picture for each combination of values on up to three axes."""

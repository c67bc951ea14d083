"""Batch normalization as a function: its arguments, its variants, its backward, and statistics that merge."""

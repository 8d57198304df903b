"""Distributions over a vocabulary: truncated, rounded to integer counts, and drawn from."""

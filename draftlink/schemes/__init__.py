"""Schemes: what a drafted token carries over the link, both ends of each in one file."""

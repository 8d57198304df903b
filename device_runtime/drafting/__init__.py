"""Drafting: drawing tokens, and how many of them, from what has been measured."""

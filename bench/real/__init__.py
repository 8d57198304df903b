"""Pretrained models: where they come from, a text of their own, and what a draft makes of it."""

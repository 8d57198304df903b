"""Choices from measured or stated costs: draft length, K, schedules, settings under trial."""

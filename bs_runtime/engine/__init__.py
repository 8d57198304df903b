"""Rounds of many sessions in one step: scheduling, slots, threads."""

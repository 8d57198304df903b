"""Connections: from a listening socket to a session whose rounds are verified."""

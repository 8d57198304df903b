"""The connection to a base station, and its loss."""

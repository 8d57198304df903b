"""From integers to bits and back: a range coder, and what it codes."""

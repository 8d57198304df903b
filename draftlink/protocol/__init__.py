"""The protocol without I/O: frames, the transition table, what is resumed, what is a fault."""

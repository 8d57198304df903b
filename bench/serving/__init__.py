"""A base station at work, and its peer: what the benchmarks of many devices measure."""

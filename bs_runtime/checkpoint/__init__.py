"""A checkpoint as it lies in a folder, in a GGUF file or on the hub: what a target is, and a draft."""

"""A checkpoint as it lies in a folder, in a GGUF file or on the hub: a target's, or a draft's."""

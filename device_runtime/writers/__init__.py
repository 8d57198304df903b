"""Who writes a text: the device and the base station by turns, the target alone, the draft alone."""

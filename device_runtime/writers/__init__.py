"""Who writes a text: device and base station by turns, the target alone, the draft alone."""

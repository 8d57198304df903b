"""Chat templates: programs of strangers, run in a sandbox in a process of their own."""

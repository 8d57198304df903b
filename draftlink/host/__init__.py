"""What concerns one machine, not the protocol: files, addresses, children, text made safe."""

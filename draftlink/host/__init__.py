"""What is of one machine rather than of the protocol: files, addresses, children, text made safe."""

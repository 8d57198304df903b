"""What an operator sees and sets: metrics, the log, limits, memory."""

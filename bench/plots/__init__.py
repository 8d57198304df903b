"""What benchmarks draw."""

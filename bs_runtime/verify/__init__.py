"""Speculative sampling: acceptance, the residual distribution, the draw."""

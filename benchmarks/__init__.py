"""Measurements: what techniques do, how fast training is, how far a sweep gets. The product imports nothing of it."""

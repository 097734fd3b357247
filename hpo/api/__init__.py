"""Sweeps from Python: launch them, and ask a stored one. The commands call the same functions."""

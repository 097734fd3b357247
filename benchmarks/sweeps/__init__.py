"""A sweep with stock parts beside one with ours, in the same minutes: the pieces of `benchmarks/sweep.py`."""

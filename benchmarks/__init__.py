"""Benchmarks: the effect of each technique, the speed of training, the progress of a sweep. No package imports them."""

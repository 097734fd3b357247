"""Parts of `benchmarks/sweep.py`: a sweep with stock parts and a sweep with `hpo run`, with equal time."""

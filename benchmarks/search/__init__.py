"""Search benchmark: sweeps in simulated time, without training, by our searchers and by rivals."""

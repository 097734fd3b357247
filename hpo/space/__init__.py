"""A search space as a sweep uses it."""

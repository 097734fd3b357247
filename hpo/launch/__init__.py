"""Launch of a sweep: from a request to a checked plan, and its record in `sweep.json`."""

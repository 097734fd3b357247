"""The driver: the one process of a sweep that decides and writes."""

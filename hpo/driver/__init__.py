"""The one process that decides and writes."""

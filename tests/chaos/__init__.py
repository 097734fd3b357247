"""Faults on a real cluster of several hosts while a sweep runs, and what has to hold afterwards."""

"""Families of interchangeable techniques, one table per file."""

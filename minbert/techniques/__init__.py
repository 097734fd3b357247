"""Families of interchangeable techniques, one table a file."""

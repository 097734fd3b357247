"""Data files, their tokens, and packed batches."""

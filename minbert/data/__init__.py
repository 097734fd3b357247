"""Data files, tokens, batches."""

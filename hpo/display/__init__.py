"""Rows as people read them: the live picture, plain lines, tables, summaries."""

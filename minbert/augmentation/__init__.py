"""New training sentences, made at the start of a trial or beforehand in a file."""

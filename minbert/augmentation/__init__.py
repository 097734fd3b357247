"""New training sentences, made within a trial or beforehand."""

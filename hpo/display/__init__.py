"""Output for people: the live display, plain lines, tables, closing screens."""

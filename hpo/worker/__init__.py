"""Worker: the process that trains trials, and what it reads and writes."""

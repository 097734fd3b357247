"""The commands of `hpo`, one file per group; each file ends with the table of what it offers."""

"""The commands of `hpo`, one file per group; each file ends with its table COMMANDS."""

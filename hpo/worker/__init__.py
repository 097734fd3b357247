"""What runs on a machine for a trial."""

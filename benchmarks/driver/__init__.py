"""What the driver's work costs without Ray: recorder, search and writer, in simulated time."""

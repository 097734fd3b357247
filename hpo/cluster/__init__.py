"""Machines and processes; nothing here knows a trial."""

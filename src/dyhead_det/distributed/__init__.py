"""Processes and devices: rank and world size, what ranks agree on, when a run stops."""

"""A run as typed sections; YAML in and out."""

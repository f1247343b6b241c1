"""The demo data sets: drawn shapes, the same bytes for the same seed."""

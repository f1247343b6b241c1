"""COCO annotation files: read, checked and repaired into compact columns."""

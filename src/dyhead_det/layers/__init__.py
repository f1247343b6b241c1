"""Tensor formulas: no configuration, no files."""

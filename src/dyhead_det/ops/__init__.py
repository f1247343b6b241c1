"""Operators with torchvision's meaning, one signature each."""

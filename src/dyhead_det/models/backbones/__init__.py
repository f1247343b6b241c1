"""Backbones with a feature pyramid."""

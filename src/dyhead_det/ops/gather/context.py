"""The type of what a custom autograd function keeps from forward to backward."""

from typing import Any

Context = Any
"""Torch lets the context take any attribute."""

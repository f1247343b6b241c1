"""The names of half precision, for settings, the command line and Python; imports nothing heavy."""

from typing import Literal

Amp = Literal["off", "bf16", "fp16"]
"""The type that products are computed in: float32, bfloat16 or float16."""

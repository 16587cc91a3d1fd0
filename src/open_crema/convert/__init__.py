"""Checkpoints of the released code and of BLIP-2 in, ours out, and back.

This room alone reads pickled files, with ``weights_only=True``.
"""

from open_crema.convert.blip2 import from_blip2
from open_crema.convert.official import Report, from_official, to_official

__all__ = ["Report", "from_blip2", "from_official", "to_official"]

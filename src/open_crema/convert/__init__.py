"""Checkpoints of the released code, of BLIP-2 and of BEATs in, ours out, and back.

This room alone reads pickled files, with ``weights_only=True``.
"""

from open_crema.convert.beats import from_beats
from open_crema.convert.blip2 import from_blip2
from open_crema.convert.official import Report, from_official, to_official

__all__ = ["Report", "from_beats", "from_blip2", "from_official", "to_official"]

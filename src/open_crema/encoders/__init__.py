"""Frozen encoders: decoded media in, Features out. One module an encoder."""

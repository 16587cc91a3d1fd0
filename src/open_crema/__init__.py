"""Open CREMA: give a frozen video-language model new senses (arXiv 2402.05889)."""

__version__ = "0.1.0"

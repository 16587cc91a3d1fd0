"""The results of docs/results.md again: ``crema reproduce senseqa``."""

from open_crema.reproduce.bench import Bench, Size
from open_crema.reproduce.studies import STUDIES, Study, find

__all__ = ["STUDIES", "Bench", "Size", "Study", "find"]

"""Scores that can be trusted: `metrics`, `run` (a model over a data set), `report` (for people)."""

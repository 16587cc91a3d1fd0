"""The published CREMA computation, written a second time: plain, slow and independent.

Nothing here imports `open_crema`. The package's own results are compared with what this package
computes, directly or through the golden files that `reference.generate` writes.
"""

"""From samples to batches of features: `sample`, `store`, `extract`, `sampler`, `dataset`."""

"""From source files to training batches: sources, splits, the prepared store and its loader."""

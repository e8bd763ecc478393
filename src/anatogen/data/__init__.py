"""From a lab's files to batches: sources, splits, the prepared store and its loader."""

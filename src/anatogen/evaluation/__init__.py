"""Evidence: metrics are functions of arrays; the segmenter judges; the report shows."""

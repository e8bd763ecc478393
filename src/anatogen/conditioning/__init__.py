"""From a label map and class states to what the network sees; mask ablation; editing label maps."""

"""From a label map and class states to the network's input; mask ablation; label-map editing."""

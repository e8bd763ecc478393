"""Training: settings, state and the loop."""

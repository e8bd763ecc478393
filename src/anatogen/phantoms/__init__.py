"""Virtual patients: arrays only."""

"""Virtual patients as arrays."""

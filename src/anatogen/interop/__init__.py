"""Data sets and models of other programs."""

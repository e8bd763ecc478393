"""Judges: auxiliary networks trained on real data, by which generated images are evaluated."""

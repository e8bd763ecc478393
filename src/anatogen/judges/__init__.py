"""Judges: networks trained on real data to judge images, and what they judge by."""

"""Grouping cases into patients by their names."""

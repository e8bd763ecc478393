"""Generators to compare with, each an `ImageModel`."""

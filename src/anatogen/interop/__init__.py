"""Other programs' data sets and models."""

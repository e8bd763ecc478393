"""File formats; nothing else in the package knows them."""

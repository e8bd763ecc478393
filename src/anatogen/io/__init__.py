"""File formats. No other part of the package reads or writes them."""

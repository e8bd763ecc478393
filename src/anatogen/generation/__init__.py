"""From requests to images: the sampling engine, its files and their manifest."""

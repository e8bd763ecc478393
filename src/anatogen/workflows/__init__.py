"""What a command or a page does, as one typed function each."""

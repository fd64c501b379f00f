"""Arrays of frameworks as memory that the engines fill, and new arrays."""

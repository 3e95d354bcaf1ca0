"""Students made from their teachers."""

"""A teacher's answers on disk, by example and view. Knows no step, no loop and no device."""

"""What a network is worth: exact metrics on any split, from any checkpoint."""

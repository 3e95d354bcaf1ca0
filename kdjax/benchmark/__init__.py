"""How fast a preset trains on this machine, what its time goes into, and what would be possible."""

"""Examples, from the disk to the device."""

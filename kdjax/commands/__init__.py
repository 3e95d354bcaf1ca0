"""What each sub-command does, from its flags to its exit: one file a command, with `run`."""

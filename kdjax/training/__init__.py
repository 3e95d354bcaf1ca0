"""One loop and one step, for teachers, baselines and students alike."""

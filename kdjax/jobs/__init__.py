"""What runs which stages: one file a job. The command line calls them, and so may a program."""

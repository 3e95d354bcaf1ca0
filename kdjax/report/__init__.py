"""One page that says what a job gained and what it cost."""

"""What runs in the processes that run calls."""

"""What a call means: the same meaning gives the same key."""

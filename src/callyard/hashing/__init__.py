"""Keys of calls: calls with the same meaning have the same key."""

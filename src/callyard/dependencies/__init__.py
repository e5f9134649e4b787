"""A call, and what it waits for."""

"""The memory in front of a backend: calls that were made before are answered, and those on their way shared."""

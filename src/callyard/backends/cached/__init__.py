"""The result cache in front of a backend: earlier calls are answered from the cache, and equal calls share one run."""

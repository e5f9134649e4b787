"""The result cache in front of a backend: it answers calls that were made before, and lets equal ones share one run."""

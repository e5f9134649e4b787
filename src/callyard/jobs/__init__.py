"""Calls that are jobs of a scheduler: how they lie on disk, and how many of them become few submissions."""

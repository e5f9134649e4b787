"""Calls that are jobs of a scheduler: their files, and the planning of few submissions for many calls."""

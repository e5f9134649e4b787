"""Calls that are jobs of a scheduler and outlive this process."""

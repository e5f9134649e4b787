"""Calls as jobs of a scheduler, which outlive this process."""

"""Frames between processes and machines: streams, shared pages, and the encrypted channel."""

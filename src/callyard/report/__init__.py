"""Reports of running calls, for people."""

"""The daemon of `Local(detached=True)`: a small scheduler for the jobs of one user on one machine."""

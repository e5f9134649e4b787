"""One node: what it has, the pool that decides who runs when, and the processes that run calls."""

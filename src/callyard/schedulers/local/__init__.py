"""The scheduler of one machine as text: requests to the daemon of `Local(detached=True)`, and readers of answers."""

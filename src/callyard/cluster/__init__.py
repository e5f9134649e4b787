"""Live calls on several nodes: the agents there, and the driver that places calls on nodes."""

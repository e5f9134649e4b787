"""Live calls on several nodes: agents there, and the driver that places calls on them."""

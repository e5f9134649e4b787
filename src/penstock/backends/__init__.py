"""Who gives the resources: this machine, or another executor."""

"""The operating system: cores, GPUs and memory, processes and their identities, limits, descriptors, permissions."""

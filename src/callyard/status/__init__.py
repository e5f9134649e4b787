"""The status of calls and executors at a moment, made of what is there anyway."""

"""The machines on which a scheduler's commands are typed."""

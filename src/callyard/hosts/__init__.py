"""Hosts: the machines on which a scheduler's commands are run."""

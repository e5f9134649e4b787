"""Hosts: the machines that run a scheduler's commands."""

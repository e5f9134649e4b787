"""Slurm as text: its commands, the answers to them, and its words for the states of jobs."""

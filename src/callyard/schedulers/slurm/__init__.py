"""Slurm as text: commands, readers of their answers, and the meaning of Slurm's job states."""

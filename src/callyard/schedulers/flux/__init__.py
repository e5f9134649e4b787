"""Flux as text: commands, readers of their answers, and the meaning of Flux's job states."""

"""Grid Engine as text: commands, readers of their answers, and the meaning of its states and failures."""

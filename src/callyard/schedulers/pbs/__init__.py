"""PBS (OpenPBS and PBS Professional) as text: commands, readers of their answers, and the meaning of its states."""

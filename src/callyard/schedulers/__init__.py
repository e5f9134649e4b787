"""Schedulers as text: their commands, the reading of the answers, and the meaning of their words. Nothing runs here.

`base` is the seam, `registry` finds a scheduler by its name. Each scheduler has a folder, which alone knows its words.
"""

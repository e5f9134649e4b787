"""Schedulers as text: commands, readers of their answers, and translations of their words. Nothing runs here.

`base` is the seam, `registry` finds a scheduler by name. Each scheduler's own words occur in one folder only.
"""

"""Schedulers as text: the commands to type, what they answer, what their words mean. Nothing here runs anything."""

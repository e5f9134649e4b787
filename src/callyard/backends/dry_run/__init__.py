"""Executors that run nothing: what each call would do, and why."""

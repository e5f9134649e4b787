"""The pool of one node: decisions on which call runs where, and the worker processes that run calls."""

"""The pool of one node: decisions about the worker of each call, and the worker processes that run the calls."""

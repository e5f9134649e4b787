"""Callyard beside its peers: `python -m bench`. How it is measured is told in docs/benchmarks.md."""

"""Helpers that know nothing of calls: locks, threads, light versions of standard modules."""

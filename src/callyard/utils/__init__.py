"""Helpers without knowledge of calls: locks, threads, light versions of standard modules."""

"""Views of a cache for people: entries by likeness, the difference of two keys, damage, tables."""

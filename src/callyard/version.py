"""The version of Callyard."""

VERSION = "0.1.0"  # and in pyproject.toml

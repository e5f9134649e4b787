"""Calls on another computer: a gateway process there holds the backend, and this process talks to it over SSH."""

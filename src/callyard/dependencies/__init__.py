"""The futures on which a call depends."""

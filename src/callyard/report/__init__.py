"""What a person sees of running calls."""

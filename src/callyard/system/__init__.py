"""What the operating system is asked: what there is, what processes hold, and to end them."""

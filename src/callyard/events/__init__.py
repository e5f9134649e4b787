"""Events of calls with their times, and the records made from them."""

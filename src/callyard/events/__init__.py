"""What happens to calls: events with their times, and the records made from them."""

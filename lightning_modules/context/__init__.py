"""What vectors of a network look like: streaming statistics, and the card that shows them."""

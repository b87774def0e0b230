"""Recorded episodes as data: what they are like, and which of them to look at."""

"""Demonstrations as training data: one sample a frame, with the actions that follow it."""

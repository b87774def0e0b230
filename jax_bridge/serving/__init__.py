"""Policies over a websocket: the server of `vla-lens serve`, and the client's half of it."""

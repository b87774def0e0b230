"""The training run: loop, checkpoints, logs, starting weights, and what it asks of its data."""

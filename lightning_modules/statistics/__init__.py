"""What the scores of a grid of probes are worth: permutation tests and code lengths."""

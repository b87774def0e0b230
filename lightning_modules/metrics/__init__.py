"""Metrics of whole grids of probes: pure functions of sums under thin torchmetrics."""

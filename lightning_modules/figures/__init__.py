"""Figures of probe results: drawn from result files alone, without torch or the data."""

"""Probes that are solved, not trained: ridge regression and linear discriminants."""

"""Simulators in which policies are rolled out."""

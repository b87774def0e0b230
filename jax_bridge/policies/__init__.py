"""Policies: from a robot observation to an action chunk and latents."""

"""How the instruction stands in the latents while an episode goes on, and whether success shows."""

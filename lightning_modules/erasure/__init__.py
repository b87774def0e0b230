"""Takes a concept out of latents: the maps, what is left, and the file that holds them."""

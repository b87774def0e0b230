"""Lightning data modules: latents out of shards as batches of cells, targets and metadata."""

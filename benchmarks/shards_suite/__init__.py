"""What `benchmarks.shards` measures, one file a subject."""

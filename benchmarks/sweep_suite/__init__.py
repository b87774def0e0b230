"""Parts of `benchmarks.sweep`."""

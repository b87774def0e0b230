"""Looking into any torch model: hooks, what they catch, and how it gets into shards."""

"""Two sets of vectors: whether, where and how much they differ, each number beside its null."""

"""Camera frames and instructions for torch models: sources, pre-processing, batches."""

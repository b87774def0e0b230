"""Training batches from data sets of demonstrations: reading, preparation, order."""

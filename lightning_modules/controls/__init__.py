"""Controls: what a probe must be compared with before its score means anything."""

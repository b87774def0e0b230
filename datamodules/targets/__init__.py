"""What probes are asked to predict; one file and one line of `registry.py` each."""

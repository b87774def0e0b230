"""What a probe is trained to do; one file and one line of `registry.py` each."""

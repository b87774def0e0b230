"""Text encoders of instructions; one file and one line of `registry.py` each."""

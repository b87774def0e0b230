"""Many fits from one file: what is to be run, who runs it, and what came out."""

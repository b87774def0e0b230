"""The layouts that are known, a file each."""

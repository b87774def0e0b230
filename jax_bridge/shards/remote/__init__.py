"""Data sets at addresses: `s3://`, `gs://`, `hf://`, `https://` and whatever fsspec opens."""

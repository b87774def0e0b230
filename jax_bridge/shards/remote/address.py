"""What an address is, and what to do where one refuses."""

import os

_CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; FSSPEC_S3_ANON=true "
    "reads a public bucket, AWS_ENDPOINT_URL names another server than Amazon's",
    "gs": "Run `gcloud auth application-default login` or set GOOGLE_APPLICATION_CREDENTIALS; "
    "FSSPEC_GS_TOKEN=anon reads a public bucket",
    "hf": "Set HF_TOKEN, or run `hf auth login`",
    "https": "Give the server's login as FSSPEC_HTTPS="
    """'{"headers": {"Authorization": "Bearer ..."}}'""",
}
_SAME = {"s3a": "s3", "gcs": "gs", "http": "https"}


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address such as `s3://bucket/data`, and no local path."""
    return "://" in os.fspath(path)


def protocol(address: str) -> str:
    """What stands before `://`."""
    return address.partition("://")[0]


def credentials_hint(address: str) -> str:
    """How to log in there, in one sentence."""
    name = protocol(address)
    hint = _CREDENTIALS.get(_SAME.get(name, name))
    return f"{hint}." if hint else f"Give what it asks for as FSSPEC_{name.upper()}_<OPTION>."

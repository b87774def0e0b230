"""The servers of the remote tests, as fixtures for all tests."""

import dataclasses
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.jax_bridge.shards.remote.file_server import FileServer, Manners
from tests.jax_bridge.shards.remote.s3_server import BROKEN, Environ, S3Server

_buckets = itertools.count()


@dataclasses.dataclass(frozen=True, kw_only=True)
class S3:
    """A bucket of one test, and the server."""

    server: S3Server
    bucket: str
    client: Any
    """boto3's, which goes round our code and counts as any other."""

    @property
    def address(self) -> str:
        """Of a data set in the bucket."""
        return f"s3://{self.bucket}/data"

    def objects(self) -> dict[str, bytes]:
        """Everything in the bucket, by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        return {key: self.get(key) for key in sorted(keys)}

    def get(self, key: str) -> bytes:
        """One object."""
        return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def put(self, key: str, content: bytes) -> None:
        """Writes one object."""
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def clear(self) -> None:
        """Removes everything."""
        for key in self.objects():
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def put_folder(self, folder: Path, prefix: str = "data") -> None:
        """Copies what does not begin with a dot."""
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def fail(self, when: Callable[[Environ], bool], status: int) -> None:
        """Answers `status` (or breaks off, with `BROKEN`) to requests of some kind."""
        self.server.fault = lambda environ: status if when(environ) else None


def is_listing(environ: Environ) -> bool:
    """Whether a request lists a bucket."""
    return environ["REQUEST_METHOD"] == "GET" and "list-type" in environ["QUERY_STRING"]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The server itself."""
    for package in ("moto", "s3fs", "flask", "boto3"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: run `make dev`")
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3]:
    """A bucket of its own, reached through the environment as a user's would be."""
    import boto3
    import s3fs

    use_endpoint(monkeypatch, s3_server.endpoint, tmp_path)
    s3fs.S3FileSystem.clear_instance_cache()
    s3_server.reset()
    client = boto3.client("s3")
    bucket = f"bucket-{next(_buckets)}"
    client.create_bucket(Bucket=bucket)
    s3_server.reset()
    yield S3(server=s3_server, bucket=bucket, client=client)
    s3_server.reset()
    client.close()
    s3fs.S3FileSystem.clear_instance_cache()


def use_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str, folder: Path) -> None:
    """Names the server and keys that open nothing else; a person's own are out of reach."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(folder / "no-aws-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-aws-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def file_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FileServer]]:
    """Starts servers: `file_server(folder, ranges=False, drop_rate=0.3, ...)`."""
    if importlib.util.find_spec("aiohttp") is None:
        pytest.skip("aiohttp is not installed: run `make dev`")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    servers: list[FileServer] = []

    def start(root: Path, *, seed: int = 0, **manners: Any) -> FileServer:
        servers.append(FileServer(root, Manners(**manners), seed=seed))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


__all__ = ["BROKEN", "S3", "FileServer", "Manners", "is_listing"]

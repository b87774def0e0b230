"""One layer out of an S3 server on the loopback (moto's, in a process of its own).

Ours reads ranges into an empty cache; the other side is webdataset with tars opened by fsspec, as
its `gopen` allows. The server counts the bytes that it sends; it is slow itself, so that the bytes
say more than the seconds.
"""

import importlib
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.shards_suite.content import BATCH, FIELD, LAYER_BYTES, decoder
from jax_bridge.shards import open_dataset

LAYER = 5
BUCKET = "bench"


class Server:
    """Knows the other process."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.endpoint: str = pipe.recv()
        self.moved: dict[str, int] = {}
        """Bytes that each side's last round moved."""

    def sent(self) -> int:
        """Bytes sent since the last question."""
        self._pipe.send("sent")
        return self._pipe.recv()


def serve(pipe: Connection) -> None:
    """Runs the server until told to end."""
    from tests.jax_bridge.shards.remote.s3_server import S3Server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = S3Server()
    pipe.send(server.endpoint)
    while pipe.recv() == "sent":
        pipe.send(server.bytes_sent)
        server.reset()
    server.stop()


@contextmanager
def served(path: Path) -> Iterator[Server]:
    """The data set as `s3://bench/data`."""
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    process.start()
    server = Server(mine)
    os.environ |= {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    import boto3
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # they keep the endpoint they were made with
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    for file in sorted(path.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            client.put_object(
                Bucket=BUCKET, Key=f"data/{file.relative_to(path)}", Body=file.read_bytes()
            )
    client.close()
    try:
        yield server
    finally:
        mine.send("end")
        process.join()


def sides(path: Path, dtype: str, server: Server) -> dict[str, Callable[[], float]]:
    """Samples a second of one layer of everything, from nothing."""
    tars = [f"s3://{BUCKET}/data/shards/{tar.name}" for tar in sorted(path.glob("shards/*.tar"))]
    return {
        "ours": lambda: counted("ours", read_ours, server),
        "webdataset and fsspec": lambda: counted(
            "webdataset and fsspec", lambda: read_theirs(tars, dtype), server
        ),
    }


def counted(name: str, read: Callable[[], int], server: Server) -> float:
    """Times one reading and asks the server what it took."""
    server.sent()
    begin = time.perf_counter()
    samples = read()
    seconds = time.perf_counter() - begin
    server.moved[name] = server.sent()
    return samples / seconds


def read_ours() -> int:
    """With an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["VLA_LENS_CACHE"] = cache
        dataset = open_dataset(f"s3://{BUCKET}/data")
        batches = dataset.iter_batches(FIELD, batch_size=BATCH, layers=[LAYER])
        return sum(len(batch["rows"]) for batch in batches)


def read_theirs(tars: list[str], dtype: str) -> int:
    """Whole tars."""
    import fsspec
    import webdataset as wds

    opener = importlib.import_module("webdataset.gopen")
    opener.gopen_schemes["s3"] = lambda url, mode, bufsize: fsspec.filesystem("s3").open(url)
    load = decoder(dtype)
    stream = wds.WebDataset(tars, shardshuffle=False)  # pyright: ignore[reportAttributeAccessIssue] -- exported at run time
    layers = stream.to_tuple("latents.safetensors").map_tuple(lambda m: load(m)[FIELD][LAYER])
    return sum(1 for _ in layers)


def overhead(server: Server, samples: int) -> dict[str, float]:
    """Bytes moved for each byte that was needed."""
    return {name: moved / (samples * LAYER_BYTES) for name, moved in server.moved.items()}

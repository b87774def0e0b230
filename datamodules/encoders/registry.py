"""The text encoders by name; any other name is a folder or a repository of the hub."""

from collections.abc import Callable
from pathlib import Path

from datamodules.encoders.encoder import Encoder
from datamodules.encoders.word_vectors import WordVectors

ENCODERS: dict[str, Callable[[], Encoder]] = {
    "tfidf": WordVectors,
}


def make_encoder(name: str, cache: Path) -> Encoder:
    """The encoder of this name.

    Raises:
        FileNotFoundError: if it is neither built in, nor on disk, nor can be fetched.
    """
    if name in ENCODERS:
        return ENCODERS[name]()
    from datamodules.encoders.pretrained import Pretrained

    return Pretrained(name, cache)

"""The published tokenizer's two files, read and written without running anybody's code."""

import dataclasses
import json
import pathlib
from typing import Any

import fsspec
from tokenizers import Tokenizer

from jax_bridge.fast.tokenizer import FastSettings, FastTokenizer

PROCESSOR, BPE = "processor_config.json", "tokenizer.json"
PUBLISHED = "physical-intelligence/fast"
"""Where its authors publish it, on the Hugging Face hub."""


def load_tokenizer(address: str) -> FastTokenizer:
    """Reads a tokenizer.

    Args:
        address: a folder, an fsspec address of one, or a name on the Hugging Face hub.

    Raises:
        FileNotFoundError: if it is not there or cannot be reached.
        ValueError: if a file is not of a FAST tokenizer.
    """
    return parse_tokenizer(_read(address, PROCESSOR), _read(address, BPE), address)


def parse_tokenizer(processor: bytes, bpe: bytes, address: str) -> FastTokenizer:
    """The tokenizer of two files' content.

    Args:
        processor: of `processor_config.json`.
        bpe: of `tokenizer.json`.
        address: for messages.

    Raises:
        ValueError: if one is not of a FAST tokenizer.
    """
    settings = _settings(processor, address)
    try:
        pairs = Tokenizer.from_str(bpe.decode())
    except Exception as error:  # the library raises Exception itself
        raise ValueError(
            f"`tokenizer` must hold a BPE in {BPE}, but that of {address!r} cannot be read "
            f"({error})."
        ) from error
    return FastTokenizer(pairs, settings)


def tokenizer_files(tokenizer: FastTokenizer) -> dict[str, bytes]:
    """Both files as the published tokenizer has them, and what transformers wants beside."""
    entry = {"processor_class": "UniversalActionProcessor"}
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    return {
        PROCESSOR: _content({**entry, **dataclasses.asdict(tokenizer.settings)}),
        "tokenizer_config.json": _content(plain),
        BPE: tokenizer.to_str().encode(),
    }


def save_tokenizer(tokenizer: FastTokenizer, folder: pathlib.Path) -> None:
    """Writes the files.

    Raises:
        FileExistsError: if the folder holds a tokenizer already.
    """
    require_no_tokenizer(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in tokenizer_files(tokenizer).items():
        (folder / name).write_bytes(content)


def require_no_tokenizer(folder: pathlib.Path) -> None:
    """Refuses a folder that holds a tokenizer already.

    Raises:
        FileExistsError: if it does.
    """
    if (folder / BPE).exists():
        raise FileExistsError(
            f"`out` must be a folder without a tokenizer, but {folder} holds one. Choose another."
        )


def _content(entry: dict[str, Any]) -> bytes:
    return (json.dumps(entry, indent=1) + "\n").encode()


def _read(address: str, name: str) -> bytes:
    local = pathlib.Path(address)
    if "://" not in address and local.is_dir():
        place = str(local / name)
    else:
        place = f"{address if '://' in address else 'hf://' + address}/{name}"
    try:
        with fsspec.open(place, "rb") as file:
            return file.read()  # pyright: ignore[reportAttributeAccessIssue]
    except Exception as error:  # whatever a store's driver raises
        raise FileNotFoundError(
            f"`tokenizer` must be the folder or address of a FAST tokenizer, but {place!r} could "
            f"not be read ({type(error).__name__}). `vla-lens fast fit` makes one; the published "
            f"one is {PUBLISHED} on the Hugging Face hub."
        ) from error


def _settings(content: bytes, address: str) -> FastSettings:
    try:
        entry = json.loads(content)
        names = {field.name for field in dataclasses.fields(FastSettings)}
        given = {name: entry[name] for name in names & set(entry) if entry[name] is not None}
        missing = {"scale", "min_token", "vocab_size"} - set(given)
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
        return FastSettings(**{**given, "scale": float(given["scale"])})
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"`tokenizer` must hold FAST's settings in {PROCESSOR}, but those of {address!r} "
            f"cannot be read ({error})."
        ) from error

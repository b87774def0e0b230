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
    settings = _settings(_read(address, PROCESSOR), address)
    try:
        bpe = Tokenizer.from_str(_read(address, BPE).decode())
    except Exception as error:  # the library raises Exception itself
        raise ValueError(
            f"`tokenizer` must hold a BPE in {BPE}, but that of {address!r} cannot be read "
            f"({error})."
        ) from error
    return FastTokenizer(bpe, settings)


def save_tokenizer(tokenizer: FastTokenizer, folder: pathlib.Path) -> None:
    """Writes both files, as the published tokenizer has them, and what transformers wants beside.

    Raises:
        FileExistsError: if the folder holds a tokenizer already.
    """
    require_no_tokenizer(folder)
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"processor_class": "UniversalActionProcessor"}
    _write(folder / PROCESSOR, {**entry, **dataclasses.asdict(tokenizer.settings)})
    plain = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    _write(folder / "tokenizer_config.json", plain)
    (folder / BPE).write_text(tokenizer.to_str(), encoding="utf-8")


def require_no_tokenizer(folder: pathlib.Path) -> None:
    """Refuses a folder that holds a tokenizer already.

    Raises:
        FileExistsError: if it does.
    """
    if (folder / BPE).exists():
        raise FileExistsError(
            f"`out` must be a folder without a tokenizer, but {folder} holds one. Choose another."
        )


def _write(path: pathlib.Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


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

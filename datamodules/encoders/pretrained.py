"""A pretrained text encoder of Hugging Face or sentence-transformers, by name or local folder.

Only configuration, tokenizer and safetensors are read; code that a repository brings is never run.

Letters: m texts, l tokens, v numbers a text.
"""

import hashlib
import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from datamodules.encoders.pooling import POOLINGS, pooling_of
from datamodules.encoders.text_folder import text_folder

TEXTS_AT_ONCE = 32
MOST_TOKENS = 512


def folder_digest(folder: Path) -> str:
    """A digest of everything that the vectors depend on: weights, tokenizer, configuration."""
    whole = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".json", ".safetensors", ".txt", ".model") and file.is_file():
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            whole.update(f"{file.relative_to(folder)} {digest}\n".encode())
    return whole.hexdigest()


class Pretrained:
    """A transformer whose token vectors are pooled; by default their mean over valid tokens.

    Vectors are kept by content: of the encoder's files and of the texts.

    Args:
        name: a local folder, or a name on the Hugging Face hub.
        cache: folder in which vectors are kept.
    """

    def __init__(self, name: str, cache: Path) -> None:
        self.name = name
        self.folder = text_folder(name)
        self.cache = cache / "embeddings"
        self.pooling = pooling_of(self.folder)
        self._digest = ""

    @property
    def digest(self) -> str:
        """Of the folder's files."""
        self._digest = self._digest or folder_digest(self.folder)
        return self._digest

    def fit(self, training: Sequence[str]) -> None:
        """Checks that there is more than one text; nothing is learnt.

        Raises:
            ValueError: if there is but one.
        """
        if len(set(training)) < 2:
            raise ValueError(
                "`target` instruction needs at least 2 different instructions among the training "
                f"rows, but got {list(training)!r}. Select more tasks."
            )

    def embed(self, texts: Sequence[str]) -> Float64[np.ndarray, "m v"]:
        """One vector a text, from the cache where they are known."""
        file = self._file(texts)
        try:
            return np.load(file, allow_pickle=False).astype(np.float64)
        except (OSError, ValueError):
            vectors = self._compute(texts)
        part = file.with_suffix(f".{uuid.uuid4().hex}.part")
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                np.save(stream, vectors.astype(np.float32))
            part.replace(file)
        except OSError:  # a cache that cannot be written costs time, nothing else
            part.unlink(missing_ok=True)
        return vectors.astype(np.float32).astype(np.float64)

    def _file(self, texts: Sequence[str]) -> Path:
        parts = json.dumps([self.digest, self.pooling, MOST_TOKENS, list(texts)])
        return self.cache / f"{hashlib.sha256(parts.encode()).hexdigest()[:32]}.npy"

    def _compute(self, texts: Sequence[str]) -> Float64[np.ndarray, "m v"]:
        tokenizer, model = _load(self.folder, self.name)
        pool, found = POOLINGS[self.pooling], []
        # Texts of one length stand together, so that padding is rare; order is restored below.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), TEXTS_AT_ONCE):
            some = [texts[i] for i in order[start : start + TEXTS_AT_ONCE]]
            said: dict[str, Int[Tensor, "m l"]] = tokenizer(
                some, padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden: Float[Tensor, "m l v"] = model(**said).last_hidden_state
            found.append(pool(hidden.float(), said["attention_mask"].bool()).numpy())
        vectors = np.empty((len(texts), found[0].shape[1]))
        vectors[order] = np.concatenate(found)
        return vectors


def _load(folder: Path, name: str) -> tuple[Any, Any]:
    """Tokenizer and the encoder half of the model.

    Raises:
        ValueError: if the folder holds no text encoder that transformers knows.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoModelForTextEncoding, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        model: Any = AutoModelForTextEncoding.from_pretrained(
            folder, use_safetensors=True, dtype=torch.float32, **safe
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"`encoder` must be a text encoder that transformers can load without code of its "
            f"own, but got {name!r} ({reason.rstrip('.')}). Choose another, or tfidf."
        ) from error
    return tokenizer, model.eval()

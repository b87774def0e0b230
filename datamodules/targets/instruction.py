"""The instruction as a vector: by a text encoder, centred on the training instructions."""

import hashlib

import numpy as np
from jaxtyping import Bool, Float32

from datamodules.clusters import first_places
from datamodules.encoders.registry import make_encoder
from datamodules.encoders.text_space import TextSpace, mean_pairwise_cosine
from datamodules.target_spec import TargetSpec
from datamodules.targets.target import Rows, TargetOptions
from jax_bridge.shards import ShardDataset


class Instruction:
    """The instruction's vector; of length sqrt(k), centred on the training instructions.

    Args:
        options: which encoder, and whether to whiten.
        column: `instruction`, which the policy read, or `task_instruction`, the task's own.
    """

    needs_seen_tasks = False
    robot_tensors = ()

    def __init__(self, options: TargetOptions, *, column: str = "instruction") -> None:
        self.options = options
        self.column = column
        self.codes = np.zeros(0, np.int64)
        self.table = np.zeros((0, 0), np.float32)

    def known(self, dataset: ShardDataset, rows: Rows) -> Bool[np.ndarray, " b"]:
        """All: no instruction is an empty one."""
        return np.ones(len(rows), bool)

    def fit(self, dataset: ShardDataset, *, rows: Rows, training: Rows) -> TargetSpec:
        """Fits the space on the training instructions and encodes every one of the data set.

        Raises:
            ValueError: if the training rows hold fewer than two different instructions.
            FileNotFoundError: if the encoder cannot be had.
        """
        given, codes = dataset.index.codes(self.column)
        texts, places = first_places([*given, ""])
        self.codes = places[codes]
        known = sorted(texts[code] for code in np.unique(self.codes[training]))
        encoder = make_encoder(self.options.encoder, self.options.cache)
        encoder.fit(known)
        vectors = encoder.embed(texts)
        trained = vectors[[texts.index(text) for text in known]]
        if not np.ptp(trained, axis=0).any():
            raise ValueError(
                f"`encoder` must tell the training instructions apart, but got "
                f"{self.options.encoder!r}, by which {known[:3]!r} are the same. Choose another."
            )
        space = TextSpace(trained, whiten=self.options.whiten)
        self.table = space.project(vectors).astype(np.float32)
        mean = self.table[self.codes[training]].mean(0, dtype=np.float64)
        selected = np.unique(self.codes[rows])
        # The same files elsewhere, or under another name, mean the same.
        about = [encoder.digest or self.options.encoder, str(self.options.whiten), *known]
        return TargetSpec(
            name=self.column,
            objective="cosine",
            size=self.table.shape[1],
            trivial=tuple(mean.tolist()),
            table=tuple(tuple(vector) for vector in self.table[selected].tolist()),
            table_names=tuple(texts[code] for code in selected),
            basis=hashlib.sha256("\n".join(about).encode()).hexdigest(),
            pairwise_cosine=mean_pairwise_cosine(trained),
            encoder=self.options.encoder,
            encoder_digest=encoder.digest,
        )

    def values(self, dataset: ShardDataset, rows: Rows) -> Float32[np.ndarray, "b k"]:
        """Vectors."""
        return self.table[self.codes[rows]]

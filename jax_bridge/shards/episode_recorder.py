"""One episode while it is being written."""

import concurrent.futures
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jax_bridge.shards.digest_thread import DigestThread
from jax_bridge.shards.episode_record import DigestedMember, EpisodeRecord
from jax_bridge.shards.field import FieldSpec
from jax_bridge.shards.file_layer import write_error
from jax_bridge.shards.index_rows import COLUMNS
from jax_bridge.shards.part import Part
from jax_bridge.shards.sample_key import EpisodeId, sample_key
from jax_bridge.shards.sample_members import (
    OUTCOMES,
    ImageFormat,
    check_extra,
    encode_image,
    encode_json,
    encode_latents,
    encode_robot,
)
from jax_bridge.shards.tar_layout import Member, member_rank

_RESERVED = frozenset(COLUMNS)
_Digest = concurrent.futures.Future[str]


class EpisodeRecorder:
    """Takes samples in the order of their timesteps; `finish` makes the episode durable.

    Leaving the `with` block without `finish` drops the episode.
    """

    def __init__(
        self,
        *,
        episode: EpisodeId,
        metadata: Mapping[str, Any],
        fields: Mapping[str, FieldSpec],
        images: ImageFormat,
        part: Part,
        digests: DigestThread,
        on_end: Callable[["EpisodeRecorder", EpisodeRecord | None], None],
    ) -> None:
        self.id = episode
        self._metadata = dict(metadata)
        self._fields = fields
        self._images = images
        self._part = part
        self._digests = digests
        self._on_end = on_end
        self._start = part.size
        self._samples: list[tuple[dict[str, Any], Member]] = []
        self._members: list[tuple[Member, _Digest | None]] = []
        self._open = True

    def append(
        self,
        *,
        timestep: int,
        latents: Mapping[str, Any] | None = None,
        call: int | None = None,
        state: Any = None,
        actions: Any = None,
        executed: Any = None,
        action_is_pad: Any = None,
        images: Mapping[str, np.ndarray] | None = None,
        truth: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        instruction: str | None = None,
    ) -> None:
        """Writes one sample.

        Args:
            timestep: environment step, 0 the first after settling; must rise.
            latents: all fields of the data set, by name; None for a sample without latents.
            call: number of the policy call that drives; None for one that only watches.
            state: robot state [S].
            actions: the predicted chunk [H, A] in robot units.
            executed: the action that was really sent [A].
            action_is_pad: which of `actions` lie behind the end of a demonstration [H].
            images: uint8 [height, width, 3] by camera name.
            truth: ground truth of the simulator, JSON-able.
            extra: scalars that become columns of the index.
            instruction: what the model reads here, if that is not the episode's own.

        Raises:
            ValueError: if a value does not fit; the message names it.
            ShardWriteError: if the disk refuses.
        """
        self._require_open()
        last = self._samples[-1][0]["timestep"] if self._samples else -1
        if timestep <= last:
            raise ValueError(f"`timestep` must rise, but got {timestep} after {last}.")
        key = sample_key(*self.id, timestep)
        entry = {
            **check_extra(extra or {}, _RESERVED),
            **self._metadata,
            **({"instruction": instruction} if instruction is not None else {}),
            "timestep": timestep,
            "call": call,
            **({"truth": truth} if truth is not None else {}),
        }
        contents = [(key, "json", encode_json(entry))]
        if latents is not None:
            members = encode_latents(latents, self._fields, key)
            contents += [(key, suffix, content) for suffix, content in members.items()]
        robot = encode_robot(state, actions, executed, action_is_pad)
        if robot is not None:
            contents.append((key, "robot.safetensors", robot))
        for camera, image in (images or {}).items():
            suffix = f"{camera}.{self._images.kind}"
            contents.append((key, suffix, encode_image(camera, image, self._images)))
        contents.sort(key=lambda content: member_rank(content[1]))
        self._write(entry, contents)

    def finish(
        self,
        *,
        success: bool | None,
        success_at_end: bool | None = None,
        episode_length: int | None = None,
    ) -> None:
        """Writes the outcome into every sample and makes the episode durable.

        Args:
            success: whether the goal held at any step; None where nobody knows.
            success_at_end: whether it held at the last step.
            episode_length: in environment steps.

        Raises:
            ValueError: if the episode has no sample or has ended.
            ShardWriteError: if the disk refuses.
        """
        self._require_open()
        if not self._samples:
            raise ValueError(f"`finish` must follow at least one sample, but {self.id} has none.")
        outcome = {
            "success": None if success is None else bool(success),
            "success_at_end": None if success_at_end is None else bool(success_at_end),
            "outcome": OUTCOMES[None if success is None else bool(success)],
            "episode_length": None if episode_length is None else int(episode_length),
        }
        try:
            final = {m: self._patch(entry, m, outcome) for entry, m in self._samples}
            record = EpisodeRecord(
                id=self.id,
                start=self._start,
                end=self._part.size,
                members=tuple(
                    DigestedMember(m, (digest or final[m]).result()) for m, digest in self._members
                ),
            )
            self._part.finish_episode(record)
        except OSError as error:
            raise write_error(error, self._part.tar_path.parent.parent) from error
        self._open = False
        self._on_end(self, record)

    def __enter__(self) -> "EpisodeRecorder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Forgets the episode, unless it was finished."""
        if self._open:
            self._open = False
            self._on_end(self, None)

    @property
    def start(self) -> int:
        """Where its first header stands in the part."""
        return self._start

    def _write(self, entry: dict[str, Any], contents: list[tuple[str, str, bytes]]) -> None:
        try:
            members = self._part.append(contents)
        except OSError as error:
            raise write_error(error, self._part.tar_path.parent.parent) from error
        for member, (_, suffix, content) in zip(members, contents, strict=True):
            if suffix == "json":
                self._samples.append((entry, member))
            later = suffix == "json"
            self._members.append((member, None if later else self._digests.submit(content)))

    def _patch(self, entry: dict[str, Any], member: Member, outcome: Mapping[str, Any]) -> _Digest:
        content = encode_json({**entry, **outcome}, member.size)
        self._part.patch(member, content)
        return self._digests.submit(content)

    def _require_open(self) -> None:
        if not self._open:
            raise ValueError(f"The episode {self.id} has ended; begin another one.")

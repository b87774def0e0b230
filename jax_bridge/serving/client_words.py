"""What a client of ours may say besides its observation, and the checks of each word.

Any openpi client can say these: they are entries of the dictionary that it sends.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jax_bridge.shards.sample_key import sample_key

SUITE = "served"
"""Suite of episodes that the client does not name."""
_KEY_PARTS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeName:
    """Which episode the client is in."""

    task_id: int
    episode: int
    suite: str = SUITE
    task_name: str | None = None
    task_instruction: str | None = None

    def __post_init__(self) -> None:
        sample_key(self.suite, self.task_id, self.episode, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeEnd:
    """How an episode ended; None where the client does not say."""

    success: bool | None = None
    success_at_end: bool | None = None
    episode_length: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientWords:
    """The words of one message."""

    collect_latents: bool = False
    """Whether the answer shall hold the latents."""
    noise_key: tuple[int | str, ...] | None = None
    """Names the sampler's noise: same words, same noise. By default episode and call."""
    reset: bool = False
    """Whether an episode begins with this call."""
    timestep: int | None = None
    """Environment step inside the episode; by default the number of the call."""
    episode: EpisodeName | None = None
    end_episode: EpisodeEnd | None = None
    """Ends the episode; such a message holds no observation."""


def read_words(message: Mapping[str, Any]) -> ClientWords:
    """The words of a message, each checked.

    Raises:
        ValueError: naming the word that is not what it must be.
    """
    return ClientWords(
        collect_latents=_flag(message, "collect_latents"),
        noise_key=_noise_key(message.get("noise_key")),
        reset=_flag(message, "reset"),
        timestep=_number(message, "timestep"),
        episode=_episode(message.get("episode")),
        end_episode=_end(message.get("end_episode")),
    )


def _flag(entry: Mapping[str, Any], name: str) -> bool:
    value = entry.get(name, False)
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` must be true or false, but got {_shown(value)}.")
    return bool(value)


def _number(entry: Mapping[str, Any], name: str) -> int | None:
    value = entry.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 10**9:
        raise ValueError(f"`{name}` must be a whole number in [0, 10^9), but got {_shown(value)}.")
    return int(value)


def _text(entry: Mapping[str, Any], name: str) -> str | None:
    value = entry.get(name)
    if value is not None and (not isinstance(value, str) or len(value) > 1000):
        raise ValueError(f"`{name}` must be at most 1000 letters, but got {_shown(value)}.")
    return value


def _noise_key(value: Any) -> tuple[int | str, ...] | None:
    if value is None:
        return None
    parts = value if isinstance(value, list) else [value]
    fits = all(isinstance(part, int | str) and len(str(part)) <= 200 for part in parts)
    if not fits or len(parts) > _KEY_PARTS:
        raise ValueError(
            f"`noise_key` must be at most {_KEY_PARTS} words and whole numbers, but got "
            f"{_shown(value)}."
        )
    return tuple(parts)


def _episode(value: Any) -> EpisodeName | None:
    if value is None:
        return None
    known = {field.name for field in dataclasses.fields(EpisodeName)}
    _check_map("episode", value, known)
    task_id, episode = _number(value, "task_id"), _number(value, "episode")
    if task_id is None or episode is None:
        raise ValueError(f"`episode` must hold task_id and episode, but got {_shown(value)}.")
    return EpisodeName(
        task_id=task_id,
        episode=episode,
        suite=_text(value, "suite") or SUITE,
        task_name=_text(value, "task_name"),
        task_instruction=_text(value, "task_instruction"),
    )


def _end(value: Any) -> EpisodeEnd | None:
    if value is None or value is False:
        return None
    value = {} if value is True else value
    _check_map("end_episode", value, {field.name for field in dataclasses.fields(EpisodeEnd)})
    outcome = {
        name: _flag(value, name) if value.get(name) is not None else None
        for name in ("success", "success_at_end")
    }
    return EpisodeEnd(**outcome, episode_length=_number(value, "episode_length"))


def _check_map(name: str, value: Any, known: set[str]) -> None:
    if not isinstance(value, dict) or not set(value) <= known:
        raise ValueError(
            f"`{name}` must be a map with entries among {', '.join(sorted(known))}, but got "
            f"{_shown(value)}."
        )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."

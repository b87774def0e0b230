"""What the old pickles hold, and under which names of ours.

task_{id}_{name}.pkl: episodes / episode_k / rollout_steps / step_t /
vlm_layer_output, text_only_hidden_states, action_expert_hidden_state_t0.9 ... t0.1
(or expert_0, expert_1), each with hidden_states [layer, 1, token, width],
post_attn_embedding, pre_attn_norm_scales, pre_mlp_norm_scales [layer, 1, token]
"""

import itertools
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from jax_bridge.old_pickles.numpy_parts import StoredArray

SITES: dict[str, str] = {
    "hidden_states": "hidden_states",
    "post_attn_embedding": "post_attn_embedding",
    "mlp_activation": "mlp_activation",
    "pre_attn_norm_scales": "pre_attn_norm_scale",
    "pre_mlp_norm_scales": "pre_mlp_norm_scale",
}
SCALES = ("pre_attn_norm_scale", "pre_mlp_norm_scale")
_GROUPS = {"vlm_layer_output": "vlm", "expert_0": "vlm", "expert_1": "action"}
_TEXT_ONLY = "text_only_hidden_states"
_ACTION = "action_expert_hidden_state"
_FILE = re.compile(r"task_(\d+)_(.+)\.pkl")
_LABEL = re.compile(r"_?t?(\d+(?:\.\d+)?)")
_WORDS = ("instruction", "language_instruction", "task_description", "task_instruction")


class TaskFile(NamedTuple):
    """One file, by its name."""

    path: pathlib.Path
    task_id: int
    task_name: str


class Source(NamedTuple):
    """Where an array comes from."""

    expert: str
    site: str
    text_only: bool
    label: float | None
    """The flow time by the source's own label."""


class OldEpisode(NamedTuple):
    """One episode of a file."""

    number: int
    success: bool | None
    total_steps: int | None
    instruction: str | None
    steps: Mapping[int, Mapping[str, Any]]
    """What stands under each step, by its number, in rising order."""


def task_files(folder: pathlib.Path) -> tuple[list[TaskFile], list[pathlib.Path]]:
    """The files of the layout by task, and other pickles in the folder.

    Raises:
        FileNotFoundError: if there are none of the layout.
        ValueError: if two files are of one task.
    """
    files, others = [], []
    for path in sorted(folder.glob("*.pkl")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            others.append(path)
        else:
            files.append(TaskFile(path, int(match[1]), match[2]))
    if not files:
        raise FileNotFoundError(
            f"`folder` must hold files named task_<number>_<name>.pkl, but {folder} has "
            f"{len(others)} other .pkl files and none of those."
        )
    files.sort()
    files.sort(key=lambda file: file.task_id)
    for one, two in itertools.pairwise(files):
        if one.task_id == two.task_id:
            raise ValueError(
                f"`folder` must hold one file a task, but task {one.task_id} has {one.path.name} "
                f"and {two.path.name}. Put them into two folders, and give each its --suite."
            )
    return files, others


def episodes(tree: Any) -> Iterator[OldEpisode]:
    """The episodes of a file in the order of their numbers.

    Raises:
        ValueError: if the tree is of another layout.
    """
    everything = _mapping(tree, "the file")
    for number, episode in _numbered(everything.get("episodes"), "episodes", "episode_"):
        about = {**everything, **episode}
        about |= _mapping(episode.get("metadata", {}), f"metadata of episode_{number}")
        steps = dict(_numbered(episode.get("rollout_steps"), "rollout_steps", "step_"))
        success, total = about.get("success"), about.get("total_steps")
        words = [about[word] for word in _WORDS if isinstance(about.get(word), str)]
        yield OldEpisode(
            number=number,
            success=None if success is None else bool(success),
            total_steps=None if total is None else int(total),
            instruction=words[0] if words else None,
            steps=steps,
        )


def arrays(step: Mapping[str, Any]) -> tuple[dict[Source, np.ndarray], set[str]]:
    """The arrays of a step, and the names that are not known."""
    found: dict[Source, np.ndarray] = {}
    unknown: set[str] = set()
    for name, group in step.items():
        for expert, text_only, label, sites in _groups(str(name), group):
            for key, value in sites.items():
                site = SITES.get(str(key))
                if expert is None or site is None or not isinstance(value, StoredArray):
                    unknown.add(str(name) if expert is None else f"{name}/{key}")
                else:
                    source = Source(expert, site, text_only, label)
                    found[source] = _without_batch(value.array, site, f"{name}/{key}")
    return found, unknown


def _groups(
    name: str, group: Any
) -> Iterator[tuple[str | None, bool, float | None, Mapping[Any, Any]]]:
    """Expert, whether text alone, label and sites of what stands under one name of a step."""
    sites = group if isinstance(group, Mapping) else {"hidden_states": group}
    if name == _TEXT_ONLY:
        yield "vlm", True, None, sites
    elif name.startswith(_ACTION):
        label = _label(name.removeprefix(_ACTION))
        yield (None if label is None else "action"), False, label, sites
    elif name in _GROUPS:
        labels = {key: _label(str(key)) for key in sites}
        if sites and None not in labels.values():
            for key, label in labels.items():
                inner = sites[key]
                inner = inner if isinstance(inner, Mapping) else {"hidden_states": inner}
                yield _GROUPS[name], False, label, inner
        else:
            yield _GROUPS[name], False, None, sites
    else:
        yield None, False, None, {name: None}


def _label(text: str) -> float | None:
    match = _LABEL.fullmatch(text)
    return None if match is None else float(match[1])


def _without_batch(array: np.ndarray, site: str, name: str) -> np.ndarray:
    """[layer, token, width], or [layer, token] for scales."""
    due = 2 if site in SCALES else 3
    result = array
    if due == 2 and result.ndim > 2 and result.shape[-1] == 1:
        result = result[..., 0]
    if result.ndim == due + 1 and result.shape[1] == 1:
        result = result[:, 0]
    if result.ndim != due:
        raise ValueError(
            f"{name} must be [layer, 1, token{'' if due == 2 else ', width'}], but is "
            f"{array.shape}."
        )
    return result


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be a dictionary, but is a {type(value).__name__}.")
    return dict(value)


def _numbered(value: Any, what: str, prefix: str) -> list[tuple[int, dict[str, Any]]]:
    entries = []
    for name, entry in _mapping(value, f"`{what}`").items():
        digits = str(name).removeprefix(prefix)
        if not digits.isascii() or not digits.isdigit():
            raise ValueError(f"`{what}` must hold {prefix}<number>, but has {str(name)!r}.")
        entries.append((int(digits), _mapping(entry, str(name))))
    return sorted(entries, key=lambda entry: entry[0])

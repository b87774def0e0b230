"""The file of a sampling plan: which frames of which episodes, and why."""

import json
from pathlib import Path
from typing import Any

FORMAT, VERSION = "vla-lens-plan", 1


def write_plan(path: Path, content: dict[str, Any]) -> None:
    """Writes a plan; `content` holds `episodes` and how they were chosen."""
    whole = {"format": FORMAT, "version": VERSION, **content}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_plan(path: str) -> dict[str, list[int]]:
    """The timesteps of each chosen episode, by the episode's name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no plan, or holds no frame.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"`plan` must be a file, but {path} is not there. `vla-lens sampling-plan` writes one."
        )
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["version"] != VERSION:
            raise ValueError(f"it says {content['format']!r}, version {content['version']!r}")
        frames = {str(e["name"]): [int(f) for f in e["frames"]] for e in content["episodes"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`plan` must be a file of `vla-lens sampling-plan`, but {path} cannot be read as one "
            f"({error})."
        ) from None
    if not any(frames.values()):
        raise ValueError(
            f"`plan` must name at least one frame, but {path} is empty. Ask `vla-lens "
            "sampling-plan` for more, or check its warnings."
        )
    return frames


def match_names(plan: dict[str, list[int]], names: list[str]) -> dict[str, list[int]]:
    """The plan under the names of this data, which may have moved to another folder.

    Raises:
        ValueError: if an episode of the plan is not there, or more than one might be meant.
    """
    matched: dict[str, list[int]] = {}
    known = set(names)
    for wanted, frames in plan.items():
        same = (
            [wanted] if wanted in known else [n for n in names if Path(n).name == Path(wanted).name]
        )
        if len(same) != 1:
            raise ValueError(
                f"`plan` must name episodes of these data, but {wanted} is "
                f"{'not there' if not same else 'not the only one of its name'}. Make the plan "
                "anew from these files."
            )
        matched[same[0]] = frames
    return matched

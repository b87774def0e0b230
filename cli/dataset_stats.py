"""`vla-lens dataset-stats FILES`: what recorded episodes are like, without decoding a frame."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser

from cli.configs import resolve_config_args
from cli.out_folder import out_folder
from cli.rows_progress import rows_progress

if TYPE_CHECKING:
    from lightning_modules.recordings.episode_facts import Recordings

DESCRIPTION = """Reads the metadata and the actions of recorded episodes (HDF5 of known layouts,
CALVIN's npz) and writes dataset_statistics.json, a Markdown report and figures: lengths, actions
per dimension, instructions, strata. What cannot be read is counted and named."""


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens dataset-stats`."""
    parser = ArgumentParser(
        prog="vla-lens dataset-stats", description=DESCRIPTION, exit_on_error=False
    )
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument(
        "files", metavar="FILES", type=str, nargs="+", help="files, folders or patterns"
    )
    parser.add_argument("--out", type=str, default="dataset_statistics", help="folder to write")
    parser.add_argument("--layout", type=str, default="auto", help="of the files; auto looks")
    return parser


def read_recordings(files: list[str], layout: str, what: str) -> "Recordings":
    """Surveys files and reads their actions, with a progress bar for each.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if no episode can be read.
    """
    from jax_bridge.episodes import survey
    from jax_bridge.episodes.survey import find_files
    from lightning_modules.recordings.episode_facts import Recordings

    with rows_progress(f"{what}: files", len(find_files(files))) as done:
        found = survey(files, layout=layout, on_file=lambda _: done(1))
    with rows_progress(f"{what}: episodes", len(found.episodes)) as done:
        return Recordings(found, done)


def main(args: list[str]) -> int:
    """Runs `vla-lens dataset-stats ...`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if no episode can be read.
    """
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    out = out_folder(config.out)
    from lightning_modules.recordings.recordings_report import recordings_json, recordings_markdown

    found = read_recordings(config.files, config.layout, "dataset-stats")
    out.mkdir(parents=True, exist_ok=True)
    said = recordings_json(found)
    text = json.dumps(said, indent=1, ensure_ascii=False) + "\n"
    (out / "dataset_statistics.json").write_text(text, encoding="utf-8")
    report = recordings_markdown(found, _draw(found, said, out))
    (out / "dataset_statistics.md").write_text(report, encoding="utf-8")
    print(
        f"{said['episodes']:,} episodes, {said['steps']:,} steps, {len(said['instructions'])} "
        f"instructions -> {out / 'dataset_statistics.md'}"
    )
    if found.skipped:
        name, why = next(iter(found.skipped.items()))
        print(f"{len(found.skipped)} could not be read, as {name}: {why}")
    return 0


def _draw(found: "Recordings", said: dict[str, Any], out: Path) -> list[str]:
    from lightning_modules.figures.recording_figures import (
        draw_actions,
        draw_counts,
        draw_lengths,
        draw_strata,
    )
    from lightning_modules.figures.style import save_figure

    figures = {
        "lengths.png": draw_lengths([facts.length for facts in found.episodes]),
        "instructions.png": draw_counts(said["instructions"], "Instructions"),
        "strata.png": draw_strata(said["strata"]),
        **{f"actions_{size}.png": draw_actions(s) for size, s in sorted(found.actions.items())},
    }
    for name, figure in figures.items():
        save_figure(figure, out / name)
    return list(figures)

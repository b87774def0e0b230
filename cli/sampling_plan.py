"""`vla-lens sampling-plan FILES`: which frames of which episodes to look at, and why."""

from pathlib import Path

from jsonargparse import ArgumentParser

from cli.configs import resolve_config_args
from cli.dataset_stats import read_recordings

DESCRIPTION = """Chooses episodes and frames so that every stratum (task, difficulty, trajectory,
...) has its share, and writes a plan for `vla-lens predict --data.plan` and a document that gives
the reason for each. A stratum is an attribute of the files, a group of --name_rule, or computed
from the movement: path_length, curvature, direction, duration."""


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens sampling-plan`."""
    parser = ArgumentParser(
        prog="vla-lens sampling-plan", description=DESCRIPTION, exit_on_error=False
    )
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument(
        "files", metavar="FILES", type=str, nargs="+", help="files, folders or patterns"
    )
    parser.add_argument("--by", type=str, default="task", help="strata, with commas between them")
    parser.add_argument("--frames_per_episode", "--frames-per-episode", type=int, default=5)
    parser.add_argument("--total", type=int, default=500, help="frames in all")
    parser.add_argument("--min", type=int, default=0, help="episodes of each stratum, at least")
    parser.add_argument(
        "--max", type=int | None, default=None, help="episodes of each stratum, at most"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument(
        "--name_rule",
        "--name-rule",
        type=str | None,
        default=None,
        help="a pattern with named groups, as (?P<difficulty>easy|hard), for the files' names",
    )
    parser.add_argument("--layout", type=str, default="auto", help="of the files; auto looks")
    parser.add_argument("--out", type=str, default="plan.json", help="file to write")
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens sampling-plan ...`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a stratum is unknown, or the bounds do not fit.
    """
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    from datamodules.frames.plan_file import write_plan
    from lightning_modules.recordings.recordings_report import plan_markdown
    from lightning_modules.recordings.sampling_plan import PlanSettings, make_plan

    settings = PlanSettings(
        by=tuple(word.strip() for word in config.by.split(",") if word.strip()),
        frames_per_episode=config.frames_per_episode, total=config.total, minimum=config.min,
        maximum=config.max, seed=config.seed, name_rule=config.name_rule,
    )  # fmt: skip
    out = Path(config.out)
    if out.suffix != ".json":
        raise ValueError(f"`--out` must end in .json, but got {out}.")
    found = read_recordings(config.files, config.layout, "sampling-plan")
    plan = make_plan(found.episodes, settings)
    write_plan(out, plan.to_json())
    document = out.with_suffix(".md")
    document.write_text(plan_markdown(plan, out.name), encoding="utf-8")
    for warning in plan.warnings:
        print(f"warning: {warning}")
    print(
        f"{plan.frames} frames of {len(plan.chosen)} of {len(found.episodes)} episodes in "
        f"{len(plan.available)} strata -> {out}, {document}"
    )
    return 0

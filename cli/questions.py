"""`vla-lens questions DATASET`: questions about recorded pictures, with answers, as shards."""

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from cli.choice import Choice
from cli.configs import resolve_config_args
from cli.rows_progress import rows_progress

if TYPE_CHECKING:
    from jax_bridge.demos.questions import QuestionWriter
    from jax_bridge.demos.scene_questions import SceneQuestionWriter

DESCRIPTION = """Asks about the pictures of a data set (where is the red cube, what is in the blue
bowl) and answers from the simulator's recorded truth; or, with --scenes, about scenes in which
nobody acted. Vision-language data for ki fit, before or beside the demonstrations (docs/demos.md).
The same command goes on where it was stopped."""


def _env() -> Choice:
    from jax_bridge.environments.registry import ENVIRONMENTS

    return Choice("env", registry=ENVIRONMENTS, default="tabletop", what="simulator of --scenes")


def build_parser(args: list[str], env: Choice) -> ArgumentParser:
    """The parser of `vla-lens questions`."""
    parser = ArgumentParser(prog="vla-lens questions", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument(
        "dataset", metavar="DATASET", nargs="?", type=str, help="recorded by vla-lens collect"
    )
    env.add_to(parser, args)
    parser.add_argument(
        "--scenes", type=int, default=None, help="instead of DATASET: as many scenes of --env"
    )
    parser.add_argument("--out", type=str, required=True, help="folder of the questions")
    parser.add_argument(
        "--per_frame", "--per-frame", type=int, default=2, help="different questions about a frame"
    )
    parser.add_argument(
        "--kinds", type=str, nargs="+", default=None, help="of questions (where, everything, ...)"
    )
    parser.add_argument(
        "--cameras", type=str, nargs="+", default=None, help="of --scenes, instead of all"
    )
    parser.add_argument(
        "--stride", type=int, default=5, help="every how many frames one is asked about"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens questions ...`; returns the exit code.

    Raises:
        FileNotFoundError: if there is no data set.
        ValueError: if nobody can ask about it, or another data set lies where it is to be written.
    """
    env = _env()
    args = env.expand(resolve_config_args(args[1:]))
    config = build_parser(args, env).parse_args(args)
    try:
        return _write(config, env)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"finished episodes are kept in {config.out}, the same command goes on from there"
        ) from interrupt


def _write(config: Namespace, env: Choice) -> int:
    if (config.dataset is None) == (config.scenes is None):
        given = "neither" if config.dataset is None else f"{config.dataset!r} and {config.scenes}"
        raise ValueError(
            f"Either `DATASET` or `--scenes` must be given, but got {given}. Name a data set of "
            "`vla-lens collect --record demos`, or `--scenes 20000` for scenes of a simulator."
        )
    writer = _about_recorded(config) if config.dataset else _about_scenes(config, env)
    with rows_progress("episodes", writer.total) as on_episode:
        asked = writer.run(config.out, on_episode)
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in asked.kinds.items()) or "none"
    print(
        f"{asked.episodes:,} episodes ({asked.skipped:,} were there already), "
        f"{sum(asked.kinds.values()):,} questions ({kinds}) -> {config.out}"
    )
    return 0


def _about_recorded(config: Namespace) -> "QuestionWriter":
    from jax_bridge.demos.questions import QuestionPlan, QuestionWriter
    from jax_bridge.shards import open_dataset

    plan = QuestionPlan(
        per_frame=config.per_frame, stride=config.stride, kinds=_kinds(config), seed=config.seed
    )
    return QuestionWriter(open_dataset(config.dataset), plan)


def _about_scenes(config: Namespace, env: Choice) -> "SceneQuestionWriter":
    from jax_bridge.demos.scene_questions import ScenePlan, SceneQuestionWriter

    plan = ScenePlan(
        scenes=config.scenes, per_scene=config.per_frame, kinds=_kinds(config),
        cameras=tuple(config.cameras) if config.cameras else None, seed=config.seed,
    )  # fmt: skip
    return SceneQuestionWriter(env.build(config), plan)


def _kinds(config: Namespace) -> tuple[str, ...] | None:
    return tuple(config.kinds) if config.kinds else None

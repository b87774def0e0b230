"""`vla-lens questions DATASET`: questions about recorded pictures, with answers, as shards."""

from jsonargparse import ArgumentParser, Namespace

from cli.configs import resolve_config_args
from cli.rows_progress import rows_progress

DESCRIPTION = """Asks about the pictures of a data set (where is the red cube, what is in the blue
bowl) and answers from the simulator's recorded truth: vision-language data for ki fit, beside the
demonstrations (docs/demos.md). The same command goes on where it was stopped."""


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens questions`."""
    parser = ArgumentParser(prog="vla-lens questions", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_argument("dataset", metavar="DATASET", type=str, help="recorded by vla-lens collect")
    parser.add_argument("--out", type=str, required=True, help="folder of the questions")
    parser.add_argument(
        "--per_frame", "--per-frame", type=int, default=2, help="different questions about a frame"
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
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    try:
        return _write(config)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"finished episodes are kept in {config.out}, the same command goes on from there"
        ) from interrupt


def _write(config: Namespace) -> int:
    from jax_bridge.demos.questions import QuestionPlan, QuestionWriter
    from jax_bridge.shards import open_dataset

    plan = QuestionPlan(per_frame=config.per_frame, stride=config.stride, seed=config.seed)
    writer = QuestionWriter(open_dataset(config.dataset), plan)
    with rows_progress("episodes", writer.total) as on_episode:
        asked = writer.run(config.out, on_episode)
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in asked.kinds.items()) or "none"
    print(
        f"{asked.episodes:,} episodes ({asked.skipped:,} were there already), "
        f"{sum(asked.kinds.values()):,} questions ({kinds}) -> {config.out}"
    )
    return 0

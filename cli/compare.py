"""`vla-lens compare A B`: whether two sets of vectors differ, where, and by how much."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import ArgumentParser, Namespace

from cli.configs import resolve_config_args
from cli.out_folder import out_folder

if TYPE_CHECKING:
    from lightning_modules.comparison.comparison import ComparisonResults
    from lightning_modules.comparison.side import SideChoice

DESCRIPTION = """Compares the vectors of two data sets (an original and a fine-tuned model), or of
two layers: many measures, each beside what it is where there is no difference, which comes from
exchanging whole episodes. Writes tables, figures and one HTML page."""
DEFAULT_OUT = Path("runs", "compare")
OF_SIDE = (
    ("field", str, "name of the field, as `vla-lens shards inspect` lists them"),
    ("layer", int, "of a field with layers"),
    ("flow_time", float, "of a field of expert action"),
    ("suite", str, "one suite of several"),
    ("task_range", str, "half-open, 0:5"),
    ("episode_range", str, "half-open, of each task's episodes"),
)


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens compare`."""
    parser = ArgumentParser(prog="vla-lens compare", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    for name in ("a", "b"):
        parser.add_argument(name, metavar=name.upper(), type=str, help="folder of a data set")
    for name, kind, what in OF_SIDE:
        for end, words in (("", what), ("_b", "the same of B, where it is another one")):
            flags = dict.fromkeys((f"--{name}{end}", f"--{name}{end}".replace("_", "-")))
            parser.add_argument(*flags, type=kind | None, default=None, help=words)
    parser.add_argument(
        "--paired", action="store_true", help="the same samples seen by two models, or two layers"
    )
    parser.add_argument(
        "--allow", type=list[str], default=[], help="what may differ: profile, prompts, dtype"
    )
    parser.add_argument("--permutations", type=int, default=400, help="exchanges of episodes")
    parser.add_argument(
        "--most_rows", "--most-rows", type=int, default=2000, help="vectors of a side, by lot"
    )
    parser.add_argument(
        "--embeddings", type=list[str], default=["pca", "tsne", "umap"], help="pictures of points"
    )
    parser.add_argument("--tensorboard", type=bool, default=True, help="write an event file, too")
    parser.add_argument("--out", type=str | None, default=None, help="folder; by default runs/...")
    parser.add_argument("--seed", type=int, default=0, help="of lots, exchanges and pictures")
    return parser


def side_choices(config: Namespace) -> "tuple[SideChoice, SideChoice]":
    """What is read of A and of B.

    Raises:
        ValueError: if no field is named.
    """
    from lightning_modules.comparison.side import SideChoice

    if config.field is None:
        raise ValueError(
            f"`--field` must name a field, but got nothing. `vla-lens shards inspect {config.a}` "
            "lists them."
        )
    first: dict[str, Any] = {name: config[name] for name, _, _ in OF_SIDE}
    own = {name: config[f"{name}_b"] for name, _, _ in OF_SIDE}
    second = first | {name: value for name, value in own.items() if value is not None}
    return SideChoice(path=config.a, **first), SideChoice(path=config.b, **second)


def check_numbers(config: Namespace) -> None:
    """Refuses numbers that no data could make right.

    Raises:
        ValueError: if one is too small.
    """
    for name, least in (("permutations", 40), ("most_rows", 10)):
        if config[name] < least:
            raise ValueError(f"`--{name}` must be at least {least}, but got {config[name]}.")


def main(args: list[str]) -> int:
    """Runs `vla-lens compare ...`.

    Raises:
        FileNotFoundError: if there is no data set.
        ValueError: if an option does not fit, or the sides cannot be compared.
    """
    parser = build_parser()
    config = parser.parse_args(listed(resolve_config_args(args[1:])))
    check_numbers(config)
    from lightning_modules.comparison.embeddings import check_kinds

    check_kinds(config.embeddings)
    out = out_folder(config.out or DEFAULT_OUT / f"{_name(config.a)}_{_name(config.b)}")
    results, page = _compare(config, out, shlex.join(["vla-lens", *args]))
    from lightning_modules.report.comparison_page import plain_words

    print("\n".join([*plain_words(results), f"report: {page}"]))
    return 0


def _name(path: str) -> str:
    return Path(path).name


def listed(args: list[str]) -> list[str]:
    """`--allow profile,dtype` or `--allow=profile` as the list that the parser reads."""
    found: list[str] = []
    for arg in args:
        name, sign, value = arg.partition("=")
        if found[-1:] in (["--allow"], ["--embeddings"]):
            found.append(_list_of(arg))
        elif sign and name in ("--allow", "--embeddings"):
            found += [name, _list_of(value)]
        else:
            found.append(arg)
    return found


def _list_of(text: str) -> str:
    if text.startswith(("[", "--")):
        return text
    return f"[{','.join(word for word in text.split(',') if word not in ('', 'none'))}]"


def _compare(config: Namespace, out: Path, command: str) -> "tuple[ComparisonResults, Path]":
    import numpy as np

    from lightning_modules.comparison.comparable import check_comparable
    from lightning_modules.comparison.comparison import compare
    from lightning_modules.comparison.comparison_folder import write_comparison
    from lightning_modules.comparison.embeddings import embeddings
    from lightning_modules.comparison.exchange import plan_exchange
    from lightning_modules.comparison.pooled import Pooled
    from lightning_modules.comparison.side import open_sides
    from lightning_modules.report.comparison_page import side_notes

    first, second = side_choices(config)
    with _progress() as show:
        a, b = open_sides(
            first, second, paired=config.paired, most_rows=config.most_rows, seed=config.seed,
            on_rows=lambda done, total: show(done, total, "reading vectors"),
        )  # fmt: skip
    notes = [*check_comparable(a, b, config.allow), *side_notes(a, b)]
    exchange = plan_exchange(
        a, b, paired=config.paired, permutations=config.permutations, seed=config.seed
    )
    if not config.paired and set(a.keys) & set(b.keys):
        notes.append(
            "A and B hold samples of the same episodes, which are compared as if they were "
            "others: --paired sees more."
        )
    vectors = np.concatenate([a.vectors, b.vectors])
    with _progress() as show:
        results = compare(vectors, exchange, seed=config.seed, show=show)
        show(1, 1, "drawing")
        pooled, points = Pooled(vectors, exchange, config.seed), {}
        for kind, found in embeddings(pooled.coordinates, config.embeddings, config.seed):
            if isinstance(found, str):
                notes.append(f"No {kind}: {found}.")
            else:
                points[kind] = found
        page = write_comparison(
            out, a, b, results, notes=notes, points=points, command=command,
            tensorboard=config.tensorboard,
        )  # fmt: skip
    return results, page


def _progress() -> Any:
    """A bar that shows what is compared, and the time left."""
    import contextlib

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    @contextlib.contextmanager
    def bar() -> Any:
        columns = (
            TextColumn("comparing"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[what]}"), TimeRemainingColumn(),
        )  # fmt: skip
        console = Console(stderr=True)
        off = not console.is_terminal  # a bar that is not seen would still end a line
        with Progress(*columns, transient=True, console=console, disable=off) as progress:
            task = progress.add_task("compare", total=None, what="")
            yield lambda done, total, what: progress.update(
                task, completed=done, total=total, what=what
            )

    return bar()

"""`vla-lens fast {fit,attach}`: learn a FAST tokenizer; write FAST targets beside a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jsonargparse import ArgumentParser, Namespace

from cli.configs import resolve_config_args
from cli.norm_stats import add_stream, open_stream
from cli.rows_progress import rows_progress

if TYPE_CHECKING:
    from jax_bridge.fast.attach import AttachReport
    from jax_bridge.fast.fitting import Fit, FitPlan, Judged
    from jax_bridge.policies.normalisation import NormStats

COMMANDS: dict[str, str] = {
    "fit": "learn a tokenizer from a data set's action chunks, and say how well it does",
    "attach": "write the FAST codes of every sample beside the data set",
}


def build_parser() -> ArgumentParser:
    """The parser of `vla-lens fast`."""
    parser = ArgumentParser(
        prog="vla-lens fast",
        description="Action chunks as short sequences of tokens (FAST).",
        exit_on_error=False,
    )
    commands = parser.add_subcommands(required=True, dest="command")
    for name, text in COMMANDS.items():
        command = ArgumentParser(
            prog=f"vla-lens fast {name}", description=f"{text}.", exit_on_error=False
        )
        command.add_argument("-c", "--config", action="config", help="a YAML file, or a name")
        command.add_argument("dataset", metavar="DATASET", type=str, help="demonstrations")
        command.add_argument(
            "--norm_stats",
            "--norm-stats",
            type=str | None,
            default=None,
            help="file; by default DATASET/norm_stats.json",
        )
        add_stream(command)
        (_add_fit if name == "fit" else _add_attach)(command)
        commands.add_subcommand(name, command, help=text)
    return parser


def _add_fit(parser: ArgumentParser) -> None:
    parser.add_argument("--out", type=str, required=True, help="folder for the tokenizer")
    parser.add_argument(
        "--scale", type=float, default=10.0, help="coefficients a unit of action; more is finer"
    )
    parser.add_argument("--vocab_size", "--vocab-size", type=int, default=2048, help="most codes")
    parser.add_argument(
        "--held_out", "--held-out", type=float, default=0.1, help="share of episodes to judge by"
    )
    parser.add_argument(
        "--most_chunks", "--most-chunks", type=int, default=200_000, help="held in memory"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice of episodes")


def _add_attach(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--tokenizer", type=str, required=True, help="folder, address or name on the hub"
    )
    parser.add_argument(
        "--out_of_range",
        "--out-of-range",
        type=Literal["raise", "clip", "skip"],
        default="raise",
        help="of chunks that the tokenizer cannot express: stop, clip and count, or leave out",
    )


def main(args: list[str]) -> int:
    """Runs `vla-lens fast ...`; returns the exit code."""
    config = build_parser().parse_args(resolve_config_args(args[1:]))
    return {"fit": _fit, "attach": _attach}[config.command](config[config.command])


def _norm_stats(config: Namespace) -> "NormStats":
    from jax_bridge.policies.normalisation import load_norm_stats

    path = config.norm_stats or f"{config.dataset.rstrip('/')}/norm_stats.json"
    if config.norm_stats is None and "://" not in path and not Path(path).exists():
        raise FileNotFoundError(
            f"`--norm_stats` must name a norm_stats.json, but {path} does not exist. Make it with "
            f"`vla-lens norm-stats {config.dataset}`."
        )
    return load_norm_stats(path)


def _plan(config: Namespace) -> "FitPlan":
    from jax_bridge.fast.fitting import FitPlan

    return FitPlan(
        scale=config.scale, vocab_size=config.vocab_size, held_out=config.held_out,
        most_chunks=config.most_chunks, seed=config.seed,
    )  # fmt: skip


def _fit(config: Namespace) -> int:
    from jax_bridge.fast.files import require_no_tokenizer, save_tokenizer
    from jax_bridge.fast.fitting import fit_tokenizer

    plan, out = _plan(config), Path(config.out)
    require_no_tokenizer(out)
    stream = open_stream(config)
    norm_stats = _norm_stats(config)
    with rows_progress("fast fit", len(stream.rows)) as on_rows:
        fit = fit_tokenizer(stream, norm_stats, plan, on_rows)
    save_tokenizer(fit.tokenizer, out)
    for line in table(fit):
        print(line)
    _draw(fit, out)
    print(f"tokenizer of {fit.tokenizer.codes} codes -> {out}")
    return 0


def table(fit: "Fit") -> list[str]:
    """What was learnt, for people."""
    parts = {"learnt from": fit.learnt, "held out": fit.held_out}
    head = f"{'chunks':<12} {'number':>8} {'naive':>6} {'tokens':>7} {'99 %':>5} {'most':>5} "
    lines = [f"{head}{'shorter':>8} {'out of range':>13} {'undecodable':>12} {'codes used':>11}"]
    for name, judged in parts.items():
        lines.append(f"{name:<12} {_row(judged)}" if judged else f"{name:<12} too few episodes")
    judged = fit.held_out or fit.learnt
    lines.append(f"round trip ({'held out' if fit.held_out else 'learnt from'}), robot units:")
    lines.append(f"  {'dim':>3} {'rms error':>12} {'largest':>12} {'bound':>12}")
    for dim, row in enumerate(
        zip(judged.rms_error, judged.largest_error, judged.bound, strict=True)
    ):
        lines.append(f"  {dim:>3} " + " ".join(f"{value:>12.4g}" for value in row))
    return lines


def _row(judged: "Judged") -> str:
    import numpy as np

    lengths = judged.lengths
    return (
        f"{len(lengths):>8,} {judged.naive:>6} {lengths.mean():>7.1f} "
        f"{np.percentile(lengths, 99):>5.0f} {lengths.max():>5} {judged.compression:>7.1f}x "
        f"{judged.clipped:>13,} {judged.undecodable:>12,} {judged.codes_used:>11,}"
    )


def _draw(fit: "Fit", out: Path) -> None:
    from lightning_modules.figures.style import save_figure
    from lightning_modules.figures.tokenizer_fit import draw_tokenizer_fit

    judged = fit.held_out or fit.learnt
    lengths = {"learnt from": fit.learnt.lengths.tolist()}
    if fit.held_out:
        lengths["held out"] = fit.held_out.lengths.tolist()
    figure = draw_tokenizer_fit(
        lengths, naive=judged.naive, rms_error=judged.rms_error.tolist(),
        largest_error=judged.largest_error.tolist(), bound=judged.bound.tolist(),
    )  # fmt: skip
    save_figure(figure, out / "fit.png")
    print(f"figure: {out / 'fit.png'}")


def _attach(config: Namespace) -> int:
    from jax_bridge.fast.attach import FastWriter
    from jax_bridge.fast.files import load_tokenizer

    if config.success_only:
        raise ValueError(
            "`--success_only` must be left out of attach, which writes the codes of every sample."
        )
    stream = open_stream(config)
    tokenizer = load_tokenizer(config.tokenizer)
    writer = FastWriter(stream, tokenizer, _norm_stats(config), config.out_of_range)
    try:
        with rows_progress("fast attach", len(stream.rows)) as on_rows:
            report = writer.run(on_rows)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"finished shards are kept in {config.dataset.rstrip('/')}/fast, the same command "
            "goes on from there"
        ) from interrupt
    _print_attached(report, config.dataset)
    return 0


def _print_attached(report: "AttachReport", dataset: str) -> None:
    import numpy as np

    lengths = np.asarray(report.lengths)
    print(
        f"{report.samples:,} samples in {report.shards + report.kept} shards ({report.kept} were "
        f"there already) -> {dataset.rstrip('/')}/fast"
    )
    print(
        f"tokens a chunk: mean {lengths.mean():.1f}, 99 % {np.percentile(lengths, 99):.0f}, most "
        f"{lengths.max()}; the sequence of a trainer needs two more"
    )
    if report.clipped:
        done = "left out" if report.left_out else "clipped"
        print(f"{report.clipped:,} samples out of the tokenizer's range were {done}")

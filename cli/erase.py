"""`vla-lens erase`: takes a concept out of latents, as a file that changes a policy."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.configs import resolve_config_args

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from lightning_modules.erasure.erasing import ErasedCell

DESCRIPTION = """Erases what a target (a task, an instruction, ...) has in common, linearly, with
the latents of the chosen cells; says what a fresh probe still finds on held-out samples; and writes
the change as an intervention file, and beside it one of random directions of the same size."""


def build_parser() -> "ArgumentParser":
    """The parser of `vla-lens erase`."""
    from jsonargparse import ArgumentParser

    from datamodules.latents import LatentDataModule

    parser = ArgumentParser(prog="vla-lens erase", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("-c", "--config", action="config", help="a YAML file, or a name in configs")
    parser.add_class_arguments(LatentDataModule, "data")
    parser.add_argument(
        "--method", type=str, default="leace", help="leace, or mean: a projection along class means"
    )
    parser.add_argument("--out", type=str, required=True, help="file to write (.safetensors)")
    parser.add_argument(
        "--memory_budget", type=int, default=2 * 2**30, help="bytes that sums may take"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random directions")
    return parser


def main(args: list[str]) -> int:
    """Runs `vla-lens erase ...`.

    Raises:
        ValueError: if the selection, the method or the budget does not fit.
        FileNotFoundError: if there is no data set.
    """
    parser = build_parser()
    config = parser.parse_args(resolve_config_args(args[1:]))
    from lightning_modules.erasure.erasing import erase

    data: Any = parser.instantiate_classes(config)["data"]
    out = Path(config.out)
    if out.suffix != ".safetensors":
        raise ValueError(f"`--out` must end in .safetensors, but got {out}.")
    found = []
    for cell in erase(
        data, method=config.method, memory_budget=config.memory_budget, seed=config.seed
    ):
        found.append(cell)
        print(line_of(cell), flush=True)
    _write(out, found, data, config.method)
    return 0


def line_of(found: "ErasedCell") -> str:
    """What a probe reads before and after, for people."""
    s = found.scores
    return (
        f"{found.cell.name}: before {s['before']:.3f}, after {s['after']:.3f}, after with a probe "
        f"of unseen samples {s['after_unseen']:.3f} (random directions {s['random_unseen']:.3f}, "
        f"trivial predictor {s['trivial']:.3f}); rank {found.map.u.shape[1]}, "
        f"{100 * found.removed:.1f} % of the variance"
    )


def _write(out: Path, found: "list[ErasedCell]", data: Any, method: str) -> None:
    import dataclasses

    from jax_bridge.interventions import Intervention, Place, save_interventions

    control = out.with_name(f"{out.stem}.random.safetensors")
    notes = {
        "target": data.target_spec.name, "dataset": data.fingerprint, "split": data.split,
        "scores": [cell.scores for cell in found],
    }  # fmt: skip
    for path, word, how in ((out, "map", method), (control, "random", f"random, as {method}")):
        entries = []
        for cell in found:
            change = getattr(cell, word)
            u, v, b = (part.float().cpu().numpy() for part in (change.u, change.v, change.b))
            place = Place(**dataclasses.asdict(cell.cell))
            entries.append(Intervention(place=place, u=u, v=v, b=b))
        save_interventions(path, entries, {"method": how, **notes})
        print(f"{'erasure' if word == 'map' else 'random control'}: {path}")

"""Tars of somebody else's WebDataset: what they hold, for a message that helps."""

import itertools
import pathlib
import tarfile

LOOKED_AT = 100
"""Members of the first tar that are looked at."""
_WANTED = (".json", ".latents.safetensors")


def foreign_tars(path: pathlib.Path) -> str | None:
    """One sentence about the tars of a folder without `dataset.json`; None where there are none."""
    tars = [path] if path.is_file() else sorted([*path.glob("*.tar"), *path.glob("shards/*.tar")])
    suffixes = _suffixes(tars[0]) if tars else []
    if not suffixes:
        return None
    missing = [suffix for suffix in _WANTED if suffix not in suffixes]
    lacks = f" and no {' or '.join(missing)}" if missing else ""
    count = "a tar" if len(tars) == 1 else f"{len(tars)} tars"
    return (
        f"There is {count} of samples with {', '.join(suffixes)}{lacks}: any reader of WebDataset "
        "reads it, but nothing tells the layers and flow times of its tensors. `open_foreign` of "
        "jax_bridge.shards reads its members, tensors and metadata."
    )


def _suffixes(path: pathlib.Path) -> list[str]:
    try:
        with tarfile.open(path, "r:") as tar:
            names = [m.name for m in itertools.islice(tar, LOOKED_AT) if m.isfile()]
    except (tarfile.TarError, OSError, ValueError, OverflowError):
        return []
    found = (name.rpartition("/")[2].partition(".")[2][:60] for name in names)
    return sorted({f".{suffix}" for suffix in found if suffix})[:10]

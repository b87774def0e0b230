"""Which tokens of an imported sequence are which region."""

from collections.abc import Iterable, Sequence

import numpy as np

from jax_bridge.vocabulary import IMAGE_REGIONS, REGIONS_OF_EXPERT

Regions = tuple[tuple[str, int], ...]
IMAGE_TOKENS = 256
"""Of one camera, by SigLIP So400m/14 at 224 pixels."""
PROMPT_TOKENS = (48, 200)
"""openpi's padded prompts: π0 and π0.5."""
HORIZONS = (10, 15, 16, 32, 50)
"""Action chunks of openpi's configs."""


def parse_regions(text: str, expert: str) -> Regions:
    """Reads `image_base:256,text:48`.

    Raises:
        ValueError: if a word is no region of the expert, a number is none, or a region comes twice.
    """
    known = REGIONS_OF_EXPERT[expert]
    regions = []
    for part in text.split(","):
        region, _, count = part.strip().partition(":")
        if region not in known or not count.isdigit() or not int(count):
            raise ValueError(
                f"`{expert}_regions` must be <region>:<tokens>,... with regions of "
                f"{', '.join(known)}, but got {text!r}."
            )
        regions.append((region, int(count)))
    if len({region for region, _ in regions}) != len(regions):
        raise ValueError(f"`{expert}_regions` must name a region once, but got {text!r}.")
    return tuple(regions)


def regions_of(tokens: int, expert: str, given: Regions | None) -> Regions:
    """Cuts a sequence into regions, by what is given or by openpi's own lengths.

    Raises:
        ValueError: if what is given does not add up, or the length fits none or several.
    """
    if given is not None:
        total = sum(count for _, count in given)
        if total != tokens:
            raise ValueError(
                f"`{expert}_regions` must add up to the {tokens} tokens that are there, but "
                f"{spell(given)} has {total}."
            )
        return given
    fitting = [one for one in _known(expert) if sum(count for _, count in one) == tokens]
    if len(fitting) != 1:
        found = " or ".join(map(spell, fitting)) or "none of openpi's"
        raise ValueError(
            f"`{expert}_regions` must be given where the length says not enough: {tokens} tokens "
            f"fit {found}. Say which tokens are what, as in --{expert}_regions "
            f"{'image_base:256,text:48' if expert == 'vlm' else 'state:1,action:50'}."
        )
    return fitting[0]


def cut(array: np.ndarray, regions: Regions) -> dict[str, np.ndarray]:
    """Slices of [layer, token, ...] by region."""
    ends = np.cumsum([count for _, count in regions])
    starts = [0, *ends[:-1].tolist()]
    return {
        region: array[:, start:end]
        for (region, _), start, end in zip(regions, starts, ends.tolist(), strict=True)
    }


def spell(regions: Sequence[tuple[str, int]]) -> str:
    """As `parse_regions` reads it."""
    return ",".join(f"{region}:{count}" for region, count in regions)


def _known(expert: str) -> Iterable[Regions]:
    if expert == "action":
        for horizon in HORIZONS:
            yield (("action", horizon),)
            yield (("state", 1), ("action", horizon))
        return
    for cameras in range(len(IMAGE_REGIONS) + 1):
        images = tuple((region, IMAGE_TOKENS) for region in IMAGE_REGIONS[:cameras])
        for prompt in PROMPT_TOKENS:
            yield (*images, ("text", prompt))

"""How many episodes each stratum gives: its share, by largest remainders, inside bounds.

Source: Hamilton's method of apportionment.
"""

from collections.abc import Hashable, Mapping
from typing import TypeVar

Stratum = TypeVar("Stratum", bound=Hashable)


def allocate(
    available: Mapping[Stratum, int], total: int, *, minimum: int = 0, maximum: int | None = None
) -> dict[Stratum, int]:
    """Shares out `total`, or as much as there is.

    Args:
        available: of each stratum.
        total: wanted of all together.
        minimum: of each stratum, if it has so many.
        maximum: of each stratum.

    Raises:
        ValueError: if the minimum of all strata together is more than the total.
    """
    if maximum is not None and maximum < max(minimum, 1):
        raise ValueError(
            f"`maximum` must be at least the minimum {minimum} and 1, but got {maximum}."
        )
    most = {s: n if maximum is None else min(n, maximum) for s, n in available.items()}
    given = {s: min(minimum, n) for s, n in most.items()}
    if sum(given.values()) > total:
        raise ValueError(
            f"`minimum` must leave room: {minimum} of each of {len(given)} strata are more than "
            f"the {total} episodes that are asked for. Ask for more, or name fewer strata."
        )
    total = min(total, sum(most.values()))
    bounded: dict[Stratum, int] = {}
    while True:
        free = {s: n for s, n in available.items() if s not in bounded}
        shared = _largest_remainders(free, total - sum(bounded.values()))
        below = {s: given[s] for s, n in shared.items() if n < given[s]}
        above = {s: most[s] for s, n in shared.items() if n > most[s]}
        # The larger excess is taken first: bounds of the other kind may vanish with it.
        short = sum(given[s] - shared[s] for s in below)
        over = sum(shared[s] - most[s] for s in above)
        if not below and not above:
            return {s: {**bounded, **shared}[s] for s in available}
        bounded |= below if short >= over else above


def _largest_remainders(weights: Mapping[Stratum, int], total: int) -> dict[Stratum, int]:
    whole = sum(weights.values())
    if not whole:
        return dict.fromkeys(weights, 0)
    shares = {s: divmod(total * n, whole) for s, n in weights.items()}
    given = {s: share for s, (share, _) in shares.items()}
    left = total - sum(given.values())
    # Equal remainders go by the order of the strata, which does not depend on the machine.
    for stratum in sorted(shares, key=lambda s: -shares[s][1])[:left]:
        given[stratum] += 1
    return given

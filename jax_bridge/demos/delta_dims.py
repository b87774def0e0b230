"""Which action dimensions are taken relative to the state, as the command line writes them."""

import re


def parse_delta_dims(
    text: str, *, action_dim: int, state_dim: int | None
) -> tuple[bool, ...] | None:
    """Reads half-open ranges of dimensions such as `0:6` or `0:6,7:13`.

    Returns:
        One entry a dimension up to the last one named; None where the text is empty (absolute).

    Raises:
        ValueError: if the text is no such list, or a dimension does not exist in both.
    """
    if not text.strip():
        return None
    named: set[int] = set()
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?::(\d+))?\s*", part)
        if found is None:
            raise ValueError(
                f"`--delta_dims` must be half-open ranges like 0:6 or 0:6,7:13, but got {text!r}."
            )
        first = int(found[1])
        named |= set(range(first, int(found[2]) if found[2] else first + 1))
    limit = min(action_dim, state_dim or 0)
    if not named or max(named) >= limit:
        raise ValueError(
            f"`--delta_dims` must lie in 0:{limit}, the dimensions that action ({action_dim}) and "
            f"state ({state_dim or 0}) both have, but got {text!r}."
        )
    return tuple(dim in named for dim in range(max(named) + 1))

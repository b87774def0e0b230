"""Half-open ranges of tasks and episodes, as the command line writes them: `0:5`, `3`, `2:`."""

import re

_RANGE = re.compile(r"^(?P<start>\d*)(?P<colon>:?)(?P<stop>\d*)$")


def parse_range(text: str, *, name: str, size: int | None) -> range:
    """Reads `START:STOP` (half-open), `START:`, `:STOP` or one number.

    Args:
        text: what the user wrote.
        name: the flag it came from, for the error.
        size: how many there are; None where any number can be drawn (then `STOP` is needed).

    Returns:
        The numbers, ascending and not empty.

    Raises:
        ValueError: if the text is no range, is empty, or leaves what exists.
    """
    match = _RANGE.match(text.strip())
    if match is None or not (match["start"] or match["stop"] or size is not None):
        raise ValueError(
            f"`{name}` must be a half-open range like 0:5 or a number, but got {text!r}."
        )
    start = int(match["start"] or 0)
    if not match["colon"]:
        stop = start + 1
    elif match["stop"]:
        stop = int(match["stop"])
    elif size is not None:
        stop = size
    else:
        raise ValueError(f"`{name}` must name its end here, but got {text!r}. Write {start}:N.")
    return _checked(range(start, stop), text=text, name=name, size=size)


def _checked(numbers: range, *, text: str, name: str, size: int | None) -> range:
    if not numbers:
        raise ValueError(f"`{name}` must not be empty, but got {text!r}. Write START:STOP.")
    if size is not None and numbers.stop > size:
        raise ValueError(
            f"`{name}` must lie in 0:{size} (there are {size}), but got {text!r}. "
            f"Choose a range inside 0:{size}."
        )
    return numbers

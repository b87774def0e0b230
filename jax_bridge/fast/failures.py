"""What can be wrong with a sequence of FAST tokens, or with a chunk that is to become one."""


class FastDecodeError(ValueError):
    """Tokens that stand for no action chunk."""


class UnknownCodeError(FastDecodeError):
    """A code that the tokenizer does not have."""


class BrokenTextError(FastDecodeError):
    """Codes whose bytes are no text: a character was cut in two."""


class WrongLengthError(FastDecodeError):
    """More or fewer coefficients than the chunk has numbers."""


class RangeError(FastDecodeError):
    """A coefficient or an action larger than any that the tokenizer stands for."""


class CoefficientRangeError(ValueError):
    """A chunk whose coefficients lie outside the tokenizer's range."""

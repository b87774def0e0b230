"""Reads a pickle without running it: calls stay descriptions of calls.

An ordinary unpickler imports what a pickle names and calls it, so that opening a checkpoint can do
anything at all. Here a global is only its name, and `REDUCE` makes an `InertCall`. Work and memory
are bounded by the length of the pickle.

Source: the opcodes of CPython's `pickletools`.
"""

import dataclasses
import pickletools
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class InertName:
    """A global that the pickle names; it was not imported."""

    name: str


@dataclasses.dataclass(eq=False)
class InertCall:
    """A call that the pickle asks for; it was not made."""

    function: Any
    arguments: Any
    items: dict[Any, Any] = dataclasses.field(default_factory=dict)
    """What the pickle sets in the result, as in an OrderedDict."""
    state: Any = None
    """What the pickle gives the result as its attributes."""


@dataclasses.dataclass(frozen=True)
class PersistentId:
    """What stands for data outside the pickle."""

    key: Any


class _Mark:
    """Where a run of arguments begins on the stack."""


_MARK = _Mark()
_LITERALS = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING"),
        *("SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Reader:
    """The stack machine."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.names: dict[str, None] = {}
        """In the order in which they came."""

    def step(self, opcode: str, argument: Any) -> None:
        """Follows one opcode."""
        if opcode in _LITERALS:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _TUPLES:
            self.stack.append(tuple(self._take(_TUPLES[opcode])))
        else:
            how = getattr(self, f"_do_{opcode.lower()}", None)
            if how is None:
                raise ValueError(f"the opcode {opcode} is not one of a checkpoint's")
            how(argument)

    def _take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("the stack is empty")
        taken = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return taken

    def _since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                taken = self.stack[place + 1 :]
                del self.stack[place:]
                return taken
        raise ValueError("a mark is missing")

    def _name(self, name: str) -> None:
        self.names[name] = None
        self.stack.append(InertName(name))

    def _do_global(self, argument: str) -> None:
        self._name(argument.replace(" ", "."))

    def _do_stack_global(self, _: Any) -> None:
        module, name = self._take(2)
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a global has no name")
        self._name(f"{module}.{name}")

    def _do_reduce(self, _: Any) -> None:
        function, arguments = self._take(2)
        self.stack.append(InertCall(function, arguments))

    _do_newobj = _do_reduce

    def _do_newobj_ex(self, _: Any) -> None:
        function, arguments, words = self._take(3)
        self.stack.append(InertCall(function, (arguments, words)))

    def _do_build(self, _: Any) -> None:
        made, state = self._take(2)
        if isinstance(made, InertCall):
            made.state = state
        self.stack.append(made)

    def _do_binpersid(self, _: Any) -> None:
        self.stack.append(PersistentId(self._take(1)[0]))

    def _do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._since_mark()))

    def _do_list(self, _: Any) -> None:
        self.stack.append(self._since_mark())

    _do_frozenset = _do_list

    def _do_dict(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._set(items)

    def _do_setitem(self, _: Any) -> None:
        self._set(self._take(2))

    def _do_setitems(self, _: Any) -> None:
        self._set(self._since_mark())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1] if self.stack else None
        target = target.items if isinstance(target, InertCall) else target
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items are set in what is no dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # A key of nested containers could take for ever to print or to hash.
            plain = isinstance(key, str | int | float | bool)
            target[key if plain else f"{type(key).__name__} {len(target)}"] = value

    def _do_append(self, _: Any) -> None:
        self._extend(self._take(1))

    def _do_appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    _do_additems = _do_appends

    def _extend(self, items: list[Any]) -> None:
        if self.stack and isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)
        elif not self.stack or not isinstance(self.stack[-1], InertCall):
            raise ValueError("items are appended to what is no list")

    def _do_memoize(self, _: Any) -> None:
        self._do_put(len(self.memo))

    def _do_put(self, place: int) -> None:
        if not self.stack:
            raise ValueError("the stack is empty")
        self.memo[place] = self.stack[-1]

    _do_binput = _do_long_binput = _do_put

    def _do_get(self, place: int) -> None:
        if place not in self.memo:
            raise ValueError(f"nothing was kept at {place}")
        self.stack.append(self.memo[place])

    _do_binget = _do_long_binget = _do_get

    def _do_pop(self, _: Any) -> None:
        self._take(1)

    def _do_pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _do_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1] if self.stack else self._take(1))

    def _do_proto(self, _: Any) -> None:
        """Nothing to do."""

    _do_frame = _do_stop = _do_proto


def read_inert(content: bytes) -> tuple[Any, tuple[str, ...]]:
    """What a pickle describes, and the names of all globals in it.

    Raises:
        ValueError: if it is damaged, or uses opcodes that no checkpoint needs.
    """
    reader = _Reader()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            reader.step(opcode.name, argument)
        (result,) = reader.stack
    except (ValueError, IndexError, OverflowError, UnicodeError) as error:
        raise ValueError(f"its pickle cannot be read ({str(error)[:200]})") from error
    return result, tuple(reader.names)

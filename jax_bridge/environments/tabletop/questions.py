"""Questions about the table, with answers in words that a small model can say.

| kind | question | answer |
|---|---|---|
| `where` | where is the red cube | `x14 y24`, its middle in the outer camera's picture |
| `inside` | what is in the blue bowl | `red cube`, `red cube and red ball`, `nothing` |
| `whether` | is the red cube in the blue bowl | `yes`, `no` |
| `held` | what is in the hand | `red cube`, `nothing` |
| `there` | is there an orange ball | `yes`, `no`: of things that not every scene has |
| `everything` | where is everything | `red cube x14 y24 white plate x06 y09 ...`, in any order |
| `way` | put the red cube in the blue bowl | `front13 right2 x14 y24 x06 y09` |
| `whole` | put the red cube in the blue bowl | the answer of `way`, then that of `everything` |

The last three are asked only where they are asked for by name. `everything` is long; one picture
then says as much as ten questions `where`. `way` puts an instruction and answers what acting on it
needs: how many centimetres the hand still has to go (to the object, or with the object in the hand
to the container) away from the robot and to its left, more roughly the further it is (`STRIDES`),
then the cells of the object and of the container. Ways that are nearly gone are asked about as
often as long ones, and with something in the hand mostly where that goes.

Places are cells of a grid that cuts the picture into 32 by 32, from its left and from its top:
however large the picture is. Whatever is hidden is asked about as well. Where yes or no, something
or nothing can both be asked for, either is as likely, so that nobody answers well without looking.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jax_bridge.environments.question import Question
from jax_bridge.environments.tabletop.camera import Camera, Point
from jax_bridge.environments.tabletop.renderer import OUTER_VIEW, place_outer_camera
from jax_bridge.environments.tabletop.scene import CONTAINERS, DISTRACTORS
from jax_bridge.environments.tabletop.tasks import GOALS, Goal

BY_NAME = ("everything", "way", "whole")
"""Kinds that are asked only where they are asked for."""
GRID = 32
"""Cells from side to side of a picture."""
STRIDES = (0, 1, 2, 3, 5, 8, 13, 21)
"""Centimetres of a way that are told: the nearest of these."""
HELD = 0.9
"""Share of the ways that are about what is in the hand, where something is."""
NEAR = 10
"""Centimetres within which, along either axis, the hand counts as near."""
_INSIDE = re.compile(r"in\((\w+), (\w+)\)")
_HELD = re.compile(r"grasped\((\w+)\)")
_ON = {item.name: "on" if item.shape == "plate" else "in" for item in CONTAINERS}
Truth = Mapping[str, Any]


class TabletopQuestions:
    """Asks about frames of the built-in simulator.

    Args:
        kinds: what it asks; None: every kind of the table above but the last three.

    Raises:
        ValueError: if there is no such kind.
    """

    def __init__(self, kinds: Sequence[str] | None = None) -> None:
        self._camera = Camera(size=GRID, field_of_view=OUTER_VIEW)
        place_outer_camera(self._camera)
        known: dict[str, Callable[[Truth, np.random.Generator], Question]] = {
            "where": self._where, "inside": _inside, "whether": _whether, "held": _held,
            "there": _there, "everything": self._everything, "way": self._way, "whole": self._whole,
        }  # fmt: skip
        if unknown := sorted(set(kinds or ()) - set(known)):
            raise ValueError(
                f"`kinds` must be some of {', '.join(known)}, but got {', '.join(unknown)}."
            )
        chosen = kinds or [kind for kind in known if kind not in BY_NAME]
        self._kinds = tuple(known[kind] for kind in chosen)

    def ask(self, truth: Truth, random: np.random.Generator) -> Question:
        """A question of a kind that is drawn; all kinds are as likely."""
        return self._kinds[random.integers(len(self._kinds))](truth, random)

    def place(self, point: Point) -> str | None:
        """The cell in which a point of the world is seen; None if it is beside the picture."""
        ((across, down),) = np.floor(self._camera.pixels(np.asarray([point], np.float32)))
        if not (0 <= across < GRID and 0 <= down < GRID):
            return None
        return f"x{int(across):02d} y{int(down):02d}"

    def _where(self, truth: Truth, random: np.random.Generator) -> Question:
        places = self._places(truth)
        name = _one(list(places), random)
        return Question("where", f"where is the {_words(name)}", places[name])

    def _everything(self, truth: Truth, random: np.random.Generator) -> Question:
        told = [f"{_words(name)} {place}" for name, place in self._places(truth).items()]
        return Question("everything", "where is everything", " ".join(random.permutation(told)))

    def _way(self, truth: Truth, random: np.random.Generator) -> Question:
        ways = {goal: _way_to(goal, truth) for goal in GOALS}
        held = [goal for goal in GOALS if _is_held(goal, truth)]
        asked = held if held and random.random() < HELD else [g for g in GOALS if g not in held]
        near = [goal for goal in asked if np.abs(ways[goal]).max() < NEAR]
        chosen = _either(near, [goal for goal in asked if goal not in near], random)
        goal = chosen[random.integers(len(chosen))]
        front, left = ways[goal]
        way = f"{_stride(front, 'front', 'back')} {_stride(left, 'left', 'right')}"
        places = self._places(truth)
        seen = [places[i.name] for i in (goal.target, goal.container) if i.name in places]
        return Question("way", goal.instruction, " ".join([way, *seen]))

    def _whole(self, truth: Truth, random: np.random.Generator) -> Question:
        way, rest = self._way(truth, random), self._everything(truth, random)
        return Question("whole", way.words, f"{way.answer} {rest.answer}")

    def _places(self, truth: Truth) -> dict[str, str]:
        """The cells of all things that are in the picture."""
        things = truth["objects"].items()
        cells = {name: self.place(np.asarray(point, np.float32)) for name, point in things}
        return {name: cell for name, cell in cells.items() if cell is not None}


def _is_held(goal: Goal, truth: Truth) -> bool:
    return truth["predicates"][f"grasped({goal.target.name})"]


def _way_to(goal: Goal, truth: Truth) -> tuple[float, float]:
    """Centimetres from the hand to a goal's object or, with that in the hand, to its container."""
    item = goal.container if _is_held(goal, truth) else goal.target
    aim = truth["objects"][item.name]
    front, left = 100 * (np.asarray(aim) - truth["gripper"])[:2]
    return float(front), float(left)


def _stride(way: float, ahead: str, behind: str) -> str:
    """One word for the way along an axis, in centimetres."""
    told = min(STRIDES, key=lambda stride: abs(stride - abs(way)))
    return f"{behind if way < 0 and told else ahead}{told}"


def _inside(truth: Truth, random: np.random.Generator) -> Question:
    pairs = _true(_INSIDE, truth)
    filled = sorted({container for _, container in pairs})
    empty = sorted(set(_ON) - set(filled))
    container = _one(_either(filled, empty, random), random)
    things = [_words(thing) for thing, where in pairs if where == container]
    asked = f"what is {_ON[container]} the {_words(container)}"
    return Question("inside", asked, " and ".join(things) or "nothing")


def _whether(truth: Truth, random: np.random.Generator) -> Question:
    pairs = [found.groups() for found in map(_INSIDE.fullmatch, truth["predicates"]) if found]
    yes = _true(_INSIDE, truth)
    chosen = _either(yes, [pair for pair in pairs if pair not in yes], random)
    thing, container = chosen[random.integers(len(chosen))]
    asked = f"is the {_words(thing)} {_ON[container]} the {_words(container)}"
    return Question("whether", asked, "yes" if chosen is yes else "no")


def _held(truth: Truth, random: np.random.Generator) -> Question:
    held = [_words(thing) for (thing,) in _true(_HELD, truth)]
    return Question("held", "what is in the hand", " and ".join(held) or "nothing")


def _there(truth: Truth, random: np.random.Generator) -> Question:
    names = [item.name for item in DISTRACTORS]
    there = [name for name in names if name in truth["objects"]]
    chosen = _either(there, [name for name in names if name not in there], random)
    words = _words(_one(chosen, random))
    asked = f"is there {'an' if words[0] in 'aeiou' else 'a'} {words}"
    return Question("there", asked, "yes" if chosen is there else "no")


def _true(kind: re.Pattern[str], truth: Truth) -> list[tuple[str, ...]]:
    """The things of all predicates of a kind that hold."""
    holding = (name for name, holds in truth["predicates"].items() if holds)
    return [found.groups() for found in map(kind.fullmatch, holding) if found]


def _either(some: list[Any], others: list[Any], random: np.random.Generator) -> list[Any]:
    """One of two lists, either as likely, but none that is empty."""
    if not some or not others:
        return some or others
    return some if random.integers(2) else others


def _one(names: Sequence[str], random: np.random.Generator) -> str:
    return names[int(random.integers(len(names)))]


def _words(name: str) -> str:
    return name.replace("_", " ")

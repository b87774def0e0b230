"""What lies on the table and where, drawn from a seed.

A scene depends on the episode and the seed, never on the task: every scene holds every object and
every container that any instruction names, so only the words tell which of them is meant.
"""

import dataclasses
from typing import Literal

import numpy as np

Shape = Literal["cube", "ball", "cylinder", "bowl", "plate", "box"]
CONTAINER_SHAPES: tuple[Shape, ...] = ("bowl", "plate", "box")
WALL = 0.006
"""Thickness of a container's wall and floor, in metres."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One kind of thing; colour and shape together are its name."""

    colour: str
    shape: Shape
    radius: float
    """Half of its width (of a box: of its side), in metres."""
    height: float
    """In metres."""

    @property
    def name(self) -> str:
        """In ground truth, such as `red_cube`."""
        return f"{self.colour}_{self.shape}"

    @property
    def words(self) -> str:
        """In instructions, such as `red cube`."""
        return f"{self.colour} {self.shape}"

    @property
    def is_container(self) -> bool:
        """Whether things can be put in it."""
        return self.shape in CONTAINER_SHAPES

    @property
    def reach(self) -> float:
        """Radius of the circle around it, in metres."""
        return self.radius * (2**0.5 if self.shape in ("cube", "box") else 1.0)


def _cube(colour: str) -> Item:
    return Item(colour=colour, shape="cube", radius=0.021, height=0.042)


def _ball(colour: str) -> Item:
    return Item(colour=colour, shape="ball", radius=0.024, height=0.048)


def _cylinder(colour: str) -> Item:
    return Item(colour=colour, shape="cylinder", radius=0.019, height=0.06)


OBJECTS: tuple[Item, ...] = (_cube("red"), _cube("green"), _ball("red"), _cylinder("blue"))
"""Objects that instructions name: colours and shapes repeat, so that both words are needed."""

CONTAINERS: tuple[Item, ...] = (
    Item(colour="blue", shape="bowl", radius=0.066, height=0.046),
    Item(colour="yellow", shape="bowl", radius=0.066, height=0.046),
    Item(colour="white", shape="plate", radius=0.072, height=0.016),
    Item(colour="green", shape="box", radius=0.055, height=0.044),
)

DISTRACTORS: tuple[Item, ...] = (
    _cube("orange"),
    _cube("purple"),
    _ball("yellow"),
    _ball("purple"),
    _cylinder("orange"),
    _cylinder("white"),
)
"""Objects that no instruction names; every scene holds `DISTRACTORS_IN_VIEW` of them."""

DISTRACTORS_IN_VIEW = 2
AREA = ((-0.23, 0.23), (-0.24, 0.24))
"""Range of x and y in which things are placed, in metres."""
GAP = 0.012
"""Least distance between two things, in metres."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed:
    """An item with its place on the table."""

    item: Item
    x: float
    y: float
    yaw: float
    """Turn about the vertical, in radians."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """A start: things on the table and the gripper above it."""

    placed: tuple[Placed, ...]
    gripper: tuple[float, float, float]
    """Position of the point between the finger tips, in metres."""


def draw_scene(*, episode: int, seed: int) -> Scene:
    """Draws the start of an episode, the same for every task."""
    rng = np.random.default_rng([seed, episode])
    chosen = sorted(rng.choice(len(DISTRACTORS), DISTRACTORS_IN_VIEW, replace=False))
    items = (*CONTAINERS, *OBJECTS, *(DISTRACTORS[i] for i in chosen))
    placed = None
    while placed is None:
        placed = _place(items, rng)
    x, y, z = rng.uniform((-0.08, -0.06, 0.19), (0.0, 0.06, 0.23))
    return Scene(placed=placed, gripper=(float(x), float(y), float(z)))


def _place(items: tuple[Item, ...], rng: np.random.Generator) -> tuple[Placed, ...] | None:
    """Places one item after the other; None where there was no room left."""
    placed: list[Placed] = []
    for item in items:
        spot = _free_spot(item, placed, rng)
        if spot is None:
            return None
        yaw = float(rng.uniform(-np.pi / 4, np.pi / 4))
        placed.append(Placed(item=item, x=spot[0], y=spot[1], yaw=yaw))
    return tuple(placed)


def _free_spot(
    item: Item, placed: list[Placed], rng: np.random.Generator, tries: int = 60
) -> tuple[float, float] | None:
    for _ in range(tries):
        x, y = (float(rng.uniform(low + item.reach, high - item.reach)) for low, high in AREA)
        if all(
            np.hypot(x - other.x, y - other.y) > item.reach + other.item.reach + GAP
            for other in placed
        ):
            return x, y
    return None

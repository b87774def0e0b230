"""A kinematic table: a gripper that follows commands, things it carries, things that fall.

Metres and radians; x points away from the robot, y to its left, z up, the table's top is z = 0.
The hand stays upright: it turns about the vertical only.
"""

import dataclasses
import math

import numpy as np

from jax_bridge.environments.tabletop.scene import WALL, Item, Scene

MOVE_PER_STEP = 0.025
"""Metres that the gripper moves along an axis for a command of 1."""
TURN_PER_STEP = 0.15
"""Radians that the gripper turns for a command of 1."""
FINGER_PER_STEP = 0.0125
"""Metres that each finger moves in a step."""
MAX_OPENING = 0.04
"""Distance of each finger from the middle when the gripper is open, in metres."""
WORKSPACE = ((-0.26, 0.26), (-0.36, 0.36), (0.01, 0.32))
"""Range of the gripper's x, y and z."""
MAX_YAW = math.pi / 2
GRASP_REACH = 0.02
"""Farthest an object's centre may be from the middle of the fingers to be held, in metres."""
FALL_PER_STEP = 0.05


@dataclasses.dataclass(kw_only=True)
class Body:
    """A thing on the table, at rest, falling or held."""

    item: Item
    x: float
    y: float
    z: float
    """Of its underside."""
    yaw: float

    @property
    def centre(self) -> tuple[float, float, float]:
        """The middle of the body."""
        return self.x, self.y, self.z + self.item.height / 2

    def distance(self, x: float, y: float) -> float:
        """Horizontal distance of its middle from a point."""
        return math.hypot(self.x - x, self.y - y)

    def over(self, container: "Body") -> bool:
        """Whether its middle is inside the container's rim, seen from above."""
        dx, dy = self.x - container.x, self.y - container.y
        if container.item.shape != "box":
            return math.hypot(dx, dy) < container.item.radius
        along, across = _turned(dx, dy, -container.yaw)
        return max(abs(along), abs(across)) < container.item.radius


class World:
    """The state of the table and what one command does to it."""

    def __init__(self, scene: Scene) -> None:
        self.bodies = [
            Body(item=placed.item, x=placed.x, y=placed.y, z=0.0, yaw=placed.yaw)
            for placed in scene.placed
        ]
        self.containers = [body for body in self.bodies if body.item.is_container]
        self.objects = [body for body in self.bodies if not body.item.is_container]
        self.x, self.y, self.z = scene.gripper
        self.yaw = 0.0
        self.opening = MAX_OPENING
        self.held: Body | None = None
        self.falling: list[Body] = []

    def find(self, item: Item) -> Body:
        """The body of an item that is in the scene."""
        return next(body for body in self.bodies if body.item == item)

    def at_rest(self, body: Body) -> bool:
        """Whether it neither falls nor is held."""
        return body is not self.held and not any(body is other for other in self.falling)

    def contains(self, container: Body, body: Body) -> bool:
        """Whether the body lies in the container, let go of and at rest."""
        return self.at_rest(body) and body.over(container)

    def step(self, action: np.ndarray) -> None:
        """Advances by one command of 7 numbers in [-1, 1]."""
        dx, dy, dz, _, _, turn, grip = (float(value) for value in action)
        old = self.x, self.y, self.z, self.yaw
        (x_low, x_high), (y_low, y_high), (z_low, z_high) = WORKSPACE
        self.x = min(max(self.x + MOVE_PER_STEP * dx, x_low), x_high)
        self.y = min(max(self.y + MOVE_PER_STEP * dy, y_low), y_high)
        self.z = min(max(self.z + MOVE_PER_STEP * dz, self._lowest(z_low)), z_high)
        self.yaw = min(max(self.yaw + TURN_PER_STEP * turn, -MAX_YAW), MAX_YAW)
        if self.held is not None:
            self._carry(self.held, old)
        self._move_fingers(grip)
        self._fall()

    def _lowest(self, z_low: float) -> float:
        """The gripper stops where what it holds meets the table."""
        if self.held is None:
            return z_low
        return max(z_low, self.z - self.held.z)

    def _carry(self, body: Body, old: tuple[float, float, float, float]) -> None:
        turn = self.yaw - old[3]
        along, across = _turned(body.x - old[0], body.y - old[1], turn)
        body.x, body.y = self.x + along, self.y + across
        body.z += self.z - old[2]
        body.yaw += turn

    def _move_fingers(self, grip: float) -> None:
        """Positive closes, negative opens, at a fixed speed."""
        wanted = self.opening - FINGER_PER_STEP * float(np.sign(grip))
        if self.held is not None:
            if grip < 0:
                self.falling, self.held = [*self.falling, self.held], None
                self.opening = min(wanted, MAX_OPENING)
            return
        self.opening = min(max(wanted, 0.0), MAX_OPENING)
        body = self._graspable() if grip > 0 else None
        if body is not None and self.opening <= body.item.radius:
            self.opening = body.item.radius
            self.held = body
            # What lay on or against it may lose its support.
            self.falling = [other for other in self.objects if other is not body]

    def _graspable(self) -> Body | None:
        """The object between the fingers."""
        near = [
            (body.distance(self.x, self.y), i)
            for i, body in enumerate(self.objects)
            if body.distance(self.x, self.y) < GRASP_REACH
            and abs(body.centre[2] - self.z) < GRASP_REACH
        ]
        return self.objects[min(near)[1]] if near else None

    def _fall(self) -> None:
        """Lets what is loose fall; what has landed is at rest."""
        if not self.falling:
            return
        still_falling = []
        for body in sorted(self.falling, key=lambda body: body.z):
            support = self._support(body)
            body.z = max(support, body.z - FALL_PER_STEP)
            if body.z > support:
                still_falling.append(body)
        self.falling = still_falling

    def _support(self, body: Body) -> float:
        """Height on which it comes to rest; slides it off rims on the way."""
        height = 0.0
        for container in self.containers:
            if body.over(container):
                _slide(
                    body, container, container.item.radius - WALL - body.item.radius, inward=True
                )
                height = WALL
            else:
                _slide(body, container, container.item.reach + body.item.radius, inward=False)
        for other in self.objects:
            if other is self.held or other.centre[2] >= body.centre[2]:
                continue
            if other.distance(body.x, body.y) < 0.8 * (body.item.radius + other.item.radius):
                height = max(height, other.z + other.item.height)
        return height


def _slide(body: Body, container: Body, radius: float, *, inward: bool) -> None:
    """Moves a body along the line from the container's middle until it is clear of the wall."""
    distance = body.distance(container.x, container.y)
    if (distance <= radius) if inward else (distance >= radius):
        return
    scale = radius / max(distance, 1e-9)
    body.x = container.x + (body.x - container.x) * scale
    body.y = container.y + (body.y - container.y) * scale


def _turned(x: float, y: float, angle: float) -> tuple[float, float]:
    """The vector turned about the vertical."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * x - sin * y, sin * x + cos * y

"""What is known of a recorded episode before any frame of it is decoded."""

import dataclasses
from typing import Any, Literal

Encoding = Literal["rgb", "bgr", "jpeg"]
"""How frames are stored: raw with red or blue first, or a JPEG (or PNG) file a frame."""
Turn = Literal["none", "flip", "mirror", "rotate"]
"""What makes a stored frame upright: nothing, exchanging top and bottom or left and right, or half
a turn."""
Scalar = str | int | float | bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera's frames inside a file."""

    name: str
    """`base`, `left_wrist` or `right_wrist`; a camera that is none of these keeps its own name."""
    place: str
    """Where its frames stand in the file."""
    height: int
    """Of a stored frame, in pixels."""
    width: int
    encoding: Encoding = "rgb"
    turn: Turn = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """Numbers that follow each other in a state or an action."""

    place: str
    """Where they stand in the file: [steps] or [steps, numbers]."""
    size: int
    """Numbers a step, after the change of form."""
    form: Literal["as stored", "axis-angle"] = "as stored"
    """`axis-angle`: a quaternion x, y, z, w is stored, three numbers are given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeInfo:
    """One recorded episode: where it lies and what it holds."""

    path: str
    """The file, or the folder where an episode is many files."""
    place: str
    """The episode inside the file; empty where the file is one episode."""
    layout: str
    """Name of the layout that reads it."""
    length: int
    """Steps that have an action."""
    actions: tuple[Column, ...]
    state: tuple[Column, ...] = ()
    """Empty where the robot's state was not recorded."""
    cameras: tuple[Camera, ...] = ()
    instruction: str | None = None
    """What the robot was told, in words; None where the file does not say."""
    success: bool | None = None
    """Whether the goal was reached; None where the file does not say."""
    attributes: dict[str, Scalar] = dataclasses.field(default_factory=dict)
    """What else the file says of the episode."""

    @property
    def action_dim(self) -> int:
        """Numbers an action."""
        return sum(column.size for column in self.actions)

    @property
    def state_dim(self) -> int | None:
        """Numbers a state; None where there is none."""
        return sum(column.size for column in self.state) or None

    @property
    def source(self) -> str:
        """File and place in it, for people."""
        return f"{self.path}:{self.place}" if self.place else self.path

    def camera(self, name: str) -> Camera:
        """A camera by name.

        Raises:
            ValueError: if the episode has no such camera.
        """
        for camera in self.cameras:
            if camera.name == name:
                return camera
        known = ", ".join(camera.name for camera in self.cameras) or "none"
        raise ValueError(f"`camera` must be one of {known} in {self.source}, but got {name!r}.")

    def seen(self, *, colour: Encoding | None = None, turn: Turn | None = None) -> "EpisodeInfo":
        """The same episode with frames taken another way than its layout says.

        Args:
            colour: `rgb` or `bgr`, of raw frames; None leaves it to the layout.
            turn: what makes frames upright; None leaves it to the layout.
        """
        cameras = []
        for camera in self.cameras:
            raw = camera.encoding != "jpeg"
            encoding = colour if raw and colour is not None else camera.encoding
            kept = camera.turn if turn is None else turn
            cameras.append(dataclasses.replace(camera, encoding=encoding, turn=kept))
        return dataclasses.replace(self, cameras=tuple(cameras))

    def to_json(self) -> dict[str, Any]:
        """What JSON can hold, field by field."""
        return dataclasses.asdict(self)

"""The targets by name; besides them any column of the index, `column:NAME` or `class:NAME`."""

from collections.abc import Callable

from datamodules.targets import outcome, robot, scene
from datamodules.targets.goal import GoalPart
from datamodules.targets.index_column import IndexColumn, ReadTexts
from datamodules.targets.instruction import Instruction
from datamodules.targets.labels import Labels
from datamodules.targets.quantities import Quantities
from datamodules.targets.swapped import swapped
from datamodules.targets.target import Target, TargetOptions
from datamodules.targets.task_id import task_of_rows

TARGETS: dict[str, Callable[[TargetOptions], Target]] = {
    "task_id": lambda _: Labels("task_id", task_of_rows, needs_seen_tasks=True),
    "instruction": Instruction,
    "task_instruction": lambda options: Instruction(options, column="task_instruction"),
    "swapped_instruction": lambda _: Labels("swapped_instruction", swapped),
    "object": lambda _: Labels("object", GoalPart("object", 0)),
    "container": lambda _: Labels("container", GoalPart("container", 1)),
    "suite": lambda _: Labels("suite", ReadTexts("suite"), all_trained=True),
    "success": lambda _: Labels("success", ReadTexts("success")),
    "success_at_end": lambda _: Labels("success_at_end", ReadTexts("success_at_end")),
    "relations": lambda _: Quantities("relations", scene.relations, questions=True),
    "object_positions": lambda _: Quantities("object_positions", scene.object_positions),
    "robot_state": lambda _: Quantities("robot_state", robot.robot_state, tensors=("state",)),
    "gripper_opening": lambda _: Quantities(
        "gripper_opening", robot.gripper_opening, tensors=("state",)
    ),
    "next_action": lambda _: Quantities("next_action", robot.next_action, tensors=("executed",)),
    "action_chunk": lambda _: Quantities(
        "action_chunk", robot.action_chunk, tensors=("actions", "action_is_pad")
    ),
    "time_to_go": lambda _: Quantities("time_to_go", outcome.time_to_go),
    "progress": lambda _: Quantities("progress", outcome.progress),
}


def check_target(name: str) -> None:
    """Refuses what is no target.

    Raises:
        ValueError: with the targets that there are.
    """
    kind, _, column = name.partition(":")
    if name not in TARGETS and not (kind in ("column", "class") and column):
        raise ValueError(
            f"`target` must be one of {', '.join(TARGETS)}, column:NAME or class:NAME, but got "
            f"{name!r}."
        )


def make_target(name: str, options: TargetOptions) -> Target:
    """The target of this name.

    Raises:
        ValueError: if there is none.
    """
    check_target(name)
    if name in TARGETS:
        return TARGETS[name](options)
    kind, _, column = name.partition(":")
    return IndexColumn(column, as_class=kind == "class")

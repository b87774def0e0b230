"""The targets by name."""

from datamodules.targets.instruction import Instruction
from datamodules.targets.robot_state import RobotState
from datamodules.targets.target import Target
from datamodules.targets.task_id import TaskId

TARGETS: dict[str, type[Target]] = {
    "task_id": TaskId,
    "instruction": Instruction,
    "robot_state": RobotState,
}

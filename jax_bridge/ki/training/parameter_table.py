"""How many parameters each group has, and how many of them training moves."""

import math

from jax_bridge.ki.optimiser import FROZEN, update_groups
from jax_bridge.ki.parameter_groups import GROUPS, group_of
from jax_bridge.ki.training.lora import with_lora_frozen
from jax_bridge.ki.training.programs import parameter_shapes
from jax_bridge.ki.training.run_config import TrainSettings
from jax_bridge.pi0.parameters import leaves


def count_parameters(settings: TrainSettings) -> dict[str, tuple[int, int]]:
    """All and trained numbers of each group, and of all together.

    What the mode does not train (the expert in `fast_only`) counts as trained unless it is frozen:
    its gradient is zero, but weight decay still moves it.
    """
    tree = parameter_shapes(settings)
    frozen = with_lora_frozen(settings.optimiser, settings.lora).freeze
    words = dict(leaves(update_groups(tree, frozen)))
    counts = {group: [0, 0] for group in (*GROUPS, "all")}
    for path, leaf in leaves(tree):
        size = math.prod(leaf.shape)
        for group in (group_of(path), "all"):
            counts[group][0] += size
            counts[group][1] += 0 if words[path] == FROZEN else size
    return {group: (every, moving) for group, (every, moving) in counts.items()}

"""The built-in table: a hand above coloured things, an outer and a wrist camera.

State: position of the hand 3, its turn as axis-angle 3, fingers 2. Action: changes of position 3
and turn 3, and the gripper; commands, already relative to where the hand is.
"""

from jax_bridge.policies.conventions.convention import Convention, Recipe

TABLETOP = Convention(
    name="tabletop",
    image_keys={"observation/image": "base", "observation/wrist_image": "left_wrist"},
    state_keys={"observation/state": 8},
    action_dim=7,
    asset_id="tabletop",
    pi0=Recipe(normalisation="quantile"),
    pi05=Recipe(normalisation="quantile", state_in_prompt=True),
)
"""Quantiles for π0 as well: one set of normalised actions serves the flow and FAST."""

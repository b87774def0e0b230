"""DROID: a Franka arm, one exterior and one wrist camera, joint velocities.

Source: openpi, `src/openpi/policies/droid_policy.py` and its configurations `pi0_droid` and
`pi05_droid`. State: joints 7, gripper 1. Action: 7 and gripper.
"""

from jax_bridge.policies.conventions.convention import Convention, Recipe

DROID = Convention(
    name="droid",
    image_keys={
        "observation/exterior_image_1_left": "base",
        "observation/wrist_image_left": "left_wrist",
    },
    state_keys={"observation/joint_position": 7, "observation/gripper_position": 1},
    action_dim=8,
    asset_id="droid",
    pi0=Recipe(normalisation="z_score", action_horizon=10),
    pi05=Recipe(normalisation="quantile", state_in_prompt=True, action_horizon=15),
)
"""Velocities are no positions, so nothing is relative to the state."""

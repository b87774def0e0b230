"""LIBERO: a Franka arm, agent view and wrist camera, end-effector actions.

Source: openpi, `src/openpi/policies/libero_policy.py` and its configurations `pi0_libero` and
`pi05_libero`. State: position 3, axis-angle 3, gripper 2. Action: 6 and gripper.
"""

from jax_bridge.policies.conventions.convention import Convention, Recipe

LIBERO = Convention(
    name="libero",
    image_keys={"observation/image": "base", "observation/wrist_image": "left_wrist"},
    state_keys={"observation/state": 8},
    action_dim=7,
    asset_id="physical-intelligence/libero",
    pi0=Recipe(normalisation="z_score", delta_mask=(True,) * 6 + (False,), action_horizon=50),
    pi05=Recipe(normalisation="quantile", action_horizon=10),
)
"""The released π0.5 checkpoint never sees the robot's state, neither as numbers nor in words."""

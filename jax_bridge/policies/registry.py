"""The policies by the name they have on the command line; a new one is one line here."""

POLICIES: dict[str, str] = {
    "pi0": "jax_bridge.policies.pi0_policy.Pi0Policy",
    "fast": "jax_bridge.policies.fast_policy.FastPolicy",
    "remote": "jax_bridge.policies.remote_policy.RemotePolicy",
}
"""Name to class path, so that naming a policy imports nothing."""

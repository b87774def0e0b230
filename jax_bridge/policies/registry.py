"""The policies by the name they have on the command line; a new one is one line here."""

POLICIES: dict[str, str] = {
    "pi0": "jax_bridge.policies.pi0_policy.Pi0Policy",
}
"""Name to class path, so that naming a policy imports nothing."""


def class_path(name: str) -> str:
    """The class behind a name; a dotted path stands for itself.

    Raises:
        ValueError: if the name is not known.
    """
    if name in POLICIES:
        return POLICIES[name]
    if "." in name:
        return name
    raise ValueError(
        f"`policy` must be one of {', '.join(POLICIES)} or a class path, but got {name!r}. "
        "Write a class as package.module.Class."
    )

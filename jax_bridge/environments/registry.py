"""Simulators by name; a new one is a new class and one line here."""

ENVIRONMENTS: dict[str, str] = {
    "libero": "jax_bridge.environments.libero.Libero",
    "tabletop": "jax_bridge.environments.tabletop.Tabletop",
}
"""Class path by name. The class is imported when it is used, so that none costs the others."""


def class_path(name: str) -> str:
    """The class behind a name; a dotted path stands for itself.

    Raises:
        ValueError: if the name is not known.
    """
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name]
    if "." in name:
        return name
    known = ", ".join(ENVIRONMENTS)
    raise ValueError(
        f"`env` must be one of {known} or a class path, but got {name!r}. "
        "Write a class as package.module.Class."
    )

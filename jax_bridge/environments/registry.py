"""Simulators by name; a new one is a new class and one line here."""

ENVIRONMENTS: dict[str, str] = {
    "libero": "jax_bridge.environments.libero.Libero",
    "tabletop": "jax_bridge.environments.tabletop.Tabletop",
}
"""Class path by name. The class is imported when it is used, so that none costs the others."""
QUESTIONERS: dict[str, str] = {
    "tabletop": "jax_bridge.environments.tabletop.questions.TabletopQuestions",
}
"""Who asks about the frames of a simulator, by the simulator's name."""

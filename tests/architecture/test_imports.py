"""The import rules of the architecture, read off the source by an AST walk."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

OURS = ("jax_bridge", "datamodules", "lightning_modules", "cli")
JAX = ("jax", "jaxlib", "flax", "optax", "orbax", "grain")
TORCH = ("torch", "lightning", "torchmetrics", "pytorch_lightning", "webdataset")
NEUTRAL = (
    "jax_bridge.shards", "jax_bridge.checkpoints", "jax_bridge.episodes",
    "jax_bridge.interventions", "jax_bridge.vocabulary",
)  # fmt: skip
HEAVY = (*JAX, *TORCH, "matplotlib", "transformers")


def imports(path: Path, *, top_level_only: bool = False) -> list[str]:
    """Dotted names that a file imports; with `from a import b` both `a` and `a.b`."""
    tree = ast.parse(path.read_text())
    nodes = list(_top_level(tree)) if top_level_only else list(ast.walk(tree))
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _top_level(tree: ast.Module):
    for node in tree.body:
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not guarded:
            yield from (
                ast.walk(node) if not isinstance(node, ast.FunctionDef | ast.ClassDef) else ()
            )


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def files(root: Path, *folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((root / folder).rglob("*.py"))]
    assert found, f"no files under {folders}"
    return found


def check(root: Path, paths: list[Path], forbidden: tuple[str, ...], allowed: tuple[str, ...] = ()):
    wrong = [
        f"{path.relative_to(root)} imports {name}"
        for path in paths
        for name in imports(path)
        if within(name, forbidden) and not within(name, allowed)
    ]
    assert wrong == []


def test_jax_bridge_imports_neither_torch_nor_our_other_packages(root):
    forbidden = (*TORCH, "datamodules", "lightning_modules", "cli")
    check(root, files(root, "jax_bridge"), forbidden)


def test_the_neutral_layer_is_free_of_jax(root):
    alone = [root / f"jax_bridge/{name}.py" for name in ("interventions", "vocabulary")]
    folders = (f"jax_bridge/{name}" for name in ("shards", "checkpoints", "episodes"))
    neutral = [*files(root, *folders), *alone]
    check(root, neutral, (*JAX, *TORCH))
    check(root, neutral, ("jax_bridge",), NEUTRAL)


def test_datamodules_import_the_neutral_layer_alone(root):
    check(root, files(root, "datamodules"), JAX)
    check(root, files(root, "datamodules"), OURS, ("datamodules", *NEUTRAL))


def test_lightning_modules_never_import_jax(root):
    check(root, files(root, "lightning_modules"), JAX)
    allowed = ("datamodules", "lightning_modules", *NEUTRAL)
    check(root, files(root, "lightning_modules"), OURS, allowed)


def test_the_command_line_imports_heavy_packages_lazily(root):
    wrong = [
        f"{path.name} imports {name}"
        for path in files(root, "cli")
        if path.name != "lightning.py"
        for name in imports(path, top_level_only=True)
        if within(name, HEAVY)
    ]
    assert wrong == []


def test_jax_bridge_itself_imports_nothing(root):
    assert imports(root / "jax_bridge/__init__.py") == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("jax_bridge.shards", ("jax", "torch")),
        ("jax_bridge.episodes", ("jax", "torch")),
        ("jax_bridge.checkpoints", ("jax", "torch")),
        ("cli.main", ("jax", "torch", "jsonargparse")),
    ],
)
def test_what_is_cheap_to_import_stays_cheap(module, absent):
    code = f"import sys, {module}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

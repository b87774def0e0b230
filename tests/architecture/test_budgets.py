"""The house style's budgets: lengths of files and functions, and names that say something."""

import ast
from pathlib import Path

import pytest

FOLDERS = ("jax_bridge", "datamodules", "lightning_modules", "cli", "benchmarks", "tests")
SAY_NOTHING = {"utils.py", "base.py", "helpers.py", "common.py", "misc.py"}


@pytest.fixture(scope="module")
def sources(root) -> list[Path]:
    return [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]


def test_no_file_is_longer_than_500_lines(sources):
    assert [p.name for p in sources if p.read_text().count("\n") > 500] == []


def test_no_file_has_a_name_that_says_nothing(sources):
    assert [str(p) for p in sources if p.name in SAY_NOTHING] == []


def test_no_function_is_longer_than_60_lines(sources):
    long = []
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno + 1 - docstring.count("\n")
                if lines > 60:
                    long.append(f"{path.name}:{node.lineno} {node.name} {lines}")
    assert long == []


def test_no_file_postpones_its_annotations(sources):
    line = "from __future__ import " + "annotations"
    assert [p.name for p in sources if line in p.read_text()] == []

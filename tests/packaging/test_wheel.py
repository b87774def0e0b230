"""The wheel, installed into a fresh environment, works from another folder."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel; its dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    site = next((folder / "lib").glob("python*/site-packages"))
    install = ["-m", "pip", "--python", str(folder), "install", "--no-deps", "--quiet", str(wheel)]
    subprocess.run([sys.executable, *install], check=True)
    (site / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder


def run(installed: Path, cwd: Path, *args: str) -> subprocess.CompletedProcess:
    command = [str(installed / "bin" / "vla-lens"), *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def test_wheel_holds_the_four_packages_their_markers_and_the_configs(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if not name.startswith("vla_lens-")}
    assert tops == {"jax_bridge", "datamodules", "lightning_modules", "cli", "configs"}
    for package in ("jax_bridge", "datamodules", "lightning_modules", "cli"):
        assert f"{package}/py.typed" in names
    assert "configs/probe.yaml" in names
    assert "lightning_modules/report/page.html" in names


def test_console_script_answers_from_another_folder(installed, tmp_path):
    done = run(installed, tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    assert "collect" in done.stdout


def test_installed_command_finds_its_configs_and_its_own_code(installed, tmp_path):
    done = run(installed, tmp_path, "shards", "inspect", "nowhere")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    python = installed / "bin" / "python"
    code = "import cli.configs as c; print(c.__file__); print(sorted(c.shipped_configs()))"
    out = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert str(installed) in out.stdout
    assert "probe" in out.stdout

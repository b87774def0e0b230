import importlib.util
import json
import os
import subprocess
import sys

import pytest

from jax_bridge.environments.libero import Libero, graphics
from jax_bridge.environments.libero.assets import assets_digest, find_assets


@pytest.fixture
def no_places(monkeypatch, tmp_path):
    """Neither the environment nor the package's own places name assets."""
    monkeypatch.delenv("VLA_LENS_LIBERO_ASSETS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(
        "jax_bridge.environments.libero.assets.package_folder", lambda: tmp_path / "package"
    )
    return tmp_path


def assets_in(folder):
    (folder / "scenes").mkdir(parents=True)
    (folder / "scenes" / "floor.xml").write_text("<mujoco/>")
    return folder


def test_assets_are_looked_for_in_the_argument_then_the_variable_then_the_packages_places(
    no_places, monkeypatch
):
    downloaded = assets_in(no_places / "home" / ".cache" / "libero" / "assets")
    assert find_assets(None) == downloaded
    beside = assets_in(no_places / "package" / "assets")
    assert find_assets(None) == beside
    named = assets_in(no_places / "named")
    monkeypatch.setenv("VLA_LENS_LIBERO_ASSETS", str(named))
    assert find_assets(None) == named
    argument = assets_in(no_places / "unpacked" / "assets")
    assert find_assets(str(argument)) == argument
    assert find_assets(str(argument.parent)) == argument


def test_absent_assets_are_an_error_that_says_what_to_fetch(no_places, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"there are none.*hf download lerobot/libero-ass"):
        find_assets(None)
    with pytest.raises(FileNotFoundError, match=r"`assets` must be a folder.*'/nowhere'"):
        find_assets("/nowhere")
    monkeypatch.setenv("VLA_LENS_LIBERO_ASSETS", "/nowhere/else")
    with pytest.raises(FileNotFoundError, match=r"\$VLA_LENS_LIBERO_ASSETS must.*'/nowhere/else'"):
        find_assets(None)


def test_the_digest_tells_sets_of_assets_apart(tmp_path):
    one, same = assets_in(tmp_path / "one"), assets_in(tmp_path / "same")
    assert assets_digest(one) == assets_digest(same)
    (same / "scenes" / "floor.xml").write_text("<mujoco />")
    assert assets_digest(one) != assets_digest(same)


def test_a_missing_package_is_an_error_that_says_what_to_install(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "libero" else find_spec(name)
    )
    with pytest.raises(FileNotFoundError, match=r"hf-libero.*Run `make libero`"):
        Libero()


def test_an_unknown_suite_and_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"`suite` must be one of libero_spatial.*'libero_cats'"):
        Libero(suite="libero_cats")
    with pytest.raises(ValueError, match="`image_size` must be at least 1, but got 0"):
        Libero(image_size=0)
    with pytest.raises(ValueError, match="`settle_steps` must not be negative, but got -1"):
        Libero(settle_steps=-1)


@pytest.fixture
def backend(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(graphics, "_egl_works", lambda: False)
    monkeypatch.setattr(graphics, "_loads", lambda library: False)
    return monkeypatch


def test_the_users_graphics_library_is_respected(backend):
    backend.setenv("MUJOCO_GL", "glfw")
    graphics.choose_backend()
    assert os.environ["MUJOCO_GL"] == "glfw"


def test_egl_is_preferred_to_osmesa(backend):
    backend.setattr(graphics, "_loads", lambda library: True)
    graphics.choose_backend()
    assert os.environ["MUJOCO_GL"] == "osmesa"
    backend.setenv("MUJOCO_GL", "")
    backend.setattr(graphics, "_egl_works", lambda: True)
    graphics.choose_backend()
    assert os.environ["MUJOCO_GL"] == "egl"


def test_no_graphics_library_is_an_error_that_says_what_to_install(backend):
    with pytest.raises(FileNotFoundError, match="apt-get install libegl1"):
        graphics.choose_backend()


def run_python(code, **environment):
    """A fresh interpreter with nothing to read from."""
    inherited = {k: v for k, v in os.environ.items() if k != "LIBERO_CONFIG_PATH"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


RUN = """
import json, sys
from jax_bridge.environments.libero import Libero
env = Libero(image_size=32)
env.reset(task_id=0, episode=0, seed=7)
env.observe()
print(json.dumps([name in sys.modules for name in ("torch", "jax", "huggingface_hub")]))
"""


@pytest.mark.libero
def test_a_first_run_asks_and_writes_and_says_nothing_and_loads_no_torch(tmp_path):
    """With warnings as errors, an empty home folder, no stdin, and never closed."""
    done = run_python(RUN, HOME=str(tmp_path))
    assert json.loads(done.stdout) == [False, False, False]
    assert done.stderr == ""
    assert [path.name for path in tmp_path.iterdir() if "libero" in path.name] == []


CONFIGURED = """
from jax_bridge.environments.libero.installation import bddl_file
print(bddl_file("libero_object", "task"))
"""


@pytest.mark.libero
def test_a_users_own_configuration_is_respected(tmp_path):
    (tmp_path / "config.yaml").write_text("bddl_files: /my/bddl\ninit_states: /my/init\n")
    done = run_python(CONFIGURED, LIBERO_CONFIG_PATH=str(tmp_path))
    assert done.stdout.strip() == "/my/bddl/libero_object/task.bddl"

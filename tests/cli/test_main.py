"""The command's front door."""

import subprocess
import sys

import pytest

from cli import main as front
from cli.main import COMMANDS, main


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_version_is_the_packages(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("vla-lens 0.")


def test_a_misspelt_command_is_named_and_the_nearest_offered(capsys):
    assert main(["colect"]) == 2
    err = capsys.readouterr().err
    assert "'colect'" in err
    assert "Did you mean 'collect'?" in err


@pytest.mark.parametrize("error", [ValueError("bad\nvalue 7"), FileNotFoundError("bad value 7")])
def test_user_errors_are_one_line_without_a_traceback(monkeypatch, capsys, error):
    def fail(args):
        raise error

    module = type(sys)("failing")
    module.main = fail
    monkeypatch.setitem(sys.modules, "failing", module)
    monkeypatch.setitem(front.COMMANDS, "fail", front.Command(module="failing", help=""))
    assert main(["fail"]) == 2
    assert capsys.readouterr().err == "vla-lens fail: error: bad value 7\n"
    monkeypatch.setenv("VLA_LENS_TRACEBACK", "1")
    with pytest.raises(type(error), match="value 7"):
        main(["fail"])


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from cli.main import main; main(['--help']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'jax', 'jsonargparse', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_reader_that_stops_reading_is_no_error():
    command = (
        f"{sys.executable} -c 'import cli.main as m, sys, types; "
        'x = types.ModuleType("x"); x.main = lambda a: [print("y" * 99) for _ in range(9999)] '
        'and 0; sys.modules["x"] = x; m.COMMANDS["x"] = m.Command(module="x", help=""); '
        'sys.exit(m.main(["x"]))\' | head -1'
    )
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True)
    assert done.stderr == b""
    assert done.returncode == 0

"""Every shipped configuration loads through the command that its first lines show."""

import re
import shlex

import pytest
import yaml

from cli.configs import find_config, read_config, resolve_config_args, shipped_configs
from cli.main import main
from jax_bridge.ki.parameter_groups import group_of
from jax_bridge.ki.training.run_config import ModelChoice
from jax_bridge.pi0.parameters import param_shapes


def documented_command(text):
    """The arguments of `vla-lens ...` in the comment on top; what it is for stands after spaces."""
    return shlex.split(re.search(r"^# +vla-lens (.+?)(?:   .*)?$", text, re.MULTILINE)[1])


def assert_holds(printed, shipped):
    for name, value in shipped.items():
        if isinstance(value, dict):
            assert_holds(printed[name], value)
        else:
            assert printed[name] == value, name


@pytest.mark.parametrize("name", shipped_configs())
def test_a_shipped_configuration_loads_through_the_command_it_documents(name, capsys):
    args = documented_command(find_config(name).read_text())
    assert ["-c", name] in (args[1:3], args[2:4])  # `vla-lens ki fit` is two words
    with pytest.raises(SystemExit, match="0"):
        main([*args, "--print_config"])
    assert_holds(yaml.safe_load(capsys.readouterr().out), read_config(name))


def test_a_configuration_is_found_by_name_or_path(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("seed: 3\n")
    assert find_config("probe") == shipped_configs()["probe"]
    assert find_config(str(mine)) == mine
    args = ["fit", "-c", "probe", f"--config={mine}", "--data.path", "probe"]
    resolved = ["fit", "-c", str(find_config("probe")), *args[3:]]
    assert resolve_config_args(args) == resolved
    with pytest.raises(FileNotFoundError, match=r"a YAML file or one of .*probe.*, but got 'prob'"):
        find_config("prob")
    with pytest.raises(FileNotFoundError, match=f"but got '{tmp_path}'"):
        find_config(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"env: {name", "must be a YAML file, but .*mine.yaml cannot be read as one"),
        (b"\xff\xfe", "must be a YAML file, but .*mine.yaml cannot be read as one"),
        (b"- a\n- b\n", "`option: value` lines, but .*mine.yaml holds list"),
        (b"", "`option: value` lines, but .*mine.yaml holds NoneType"),
    ],
)
def test_what_is_no_configuration_is_named(tmp_path, capsys, content, message):
    (tmp_path / "mine.yaml").write_bytes(content)
    assert main(["collect", "-c", str(tmp_path / "mine.yaml"), "--out", "x"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


@pytest.mark.parametrize("name", ["ki_tabletop_words", "ki_tabletop_ways"])
def test_what_answers_do_not_teach_is_frozen_on_the_tabletop(name):
    config = read_config(name)
    paths = param_shapes(ModelChoice(**config["model"]).config())
    frozen = {path for path in paths if re.search(config["optimiser"]["freeze"], path)}
    assert frozen == {path for path in paths if group_of(path) == "expert"}

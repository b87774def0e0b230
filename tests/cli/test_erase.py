import pytest

from cli.main import main
from jax_bridge.interventions import load_interventions
from tests.planted import PLANTED_LAYER, TEXT, write_planted


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_planted(tmp_path_factory.mktemp("erase") / "data")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VLA_LENS_CACHE", str(tmp_path / "cache"))


def test_erase_writes_the_map_and_random_directions_and_says_what_is_left(data, tmp_path, capsys):
    out = tmp_path / "task.safetensors"
    words = ["erase", f"--data.path={data}", f"--data.layer={PLANTED_LAYER}", f"--out={out}"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert f"{TEXT}/layer02: before 1.000, after 0.2" in said
    assert "rank 3" in said
    for path in (out, tmp_path / "task.random.safetensors"):
        file = load_interventions(path)
        (found,) = file.interventions
        assert found.place.name == f"{TEXT}/layer{PLANTED_LAYER:02d}"
        assert file.notes["target"] == "task_id"
        assert found.u.shape == (12, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out=x.pt"], "`--out` must end in .safetensors, but got x.pt"),
        (["--out=x.safetensors", "--method=wish"], "`method` must be leace or mean"),
        (["--out=x.safetensors", "--data.layer=77"], "`layer` must be captured, but got 77"),
    ],
)
def test_what_cannot_be_erased_is_one_sentence(data, words, message, capsys):
    assert main(["erase", f"--data.path={data}", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

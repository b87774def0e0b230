"""`vla-lens collect --workers`: the same bytes for any number, and options that cannot be."""

import itertools

import pytest

from cli.collect import main
from cli.main import main as front
from jax_bridge.shards import open_dataset

SMALL = [
    *("--policy.preset", "pi05_micro", "--policy.num_steps", "1", "--max-steps", "6"),
    *("--tasks", "0:2", "--episodes", "0:2", "--env.image_size", "32", "--batch", "2"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A data set that one process wrote at once."""
    out = tmp_path_factory.mktemp("whole") / "data"
    assert main([*SMALL, "--workers", "1", "--out", str(out)]) == 0
    return out


def tars(folder):
    return {path.name: path.read_bytes() for path in (folder / "shards").glob("*.tar")}


def test_equal_commands_with_more_workers_give_equal_bytes(whole, tmp_path, capsys):
    assert main([*SMALL, "--workers", "2", "--out", str(tmp_path)]) == 0
    assert "4 episodes (0 were there already), 8 samples" in capsys.readouterr().out
    assert tars(tmp_path) == tars(whole)
    assert open_dataset(tmp_path).info.environment["rollout"]["batch"] == 2


def test_ctrl_c_keeps_whole_episodes_and_another_number_of_workers_goes_on(
    whole, tmp_path, capsys, monkeypatch
):
    from jax_bridge.rollouts.simulator_pool import SimulatorPool

    ticks, gather = itertools.count(), SimulatorPool.gather

    def interrupted(self, required):
        if next(ticks) == 4:  # in the second episode of each row
            raise KeyboardInterrupt
        return gather(self, required)

    monkeypatch.setattr(SimulatorPool, "gather", interrupted)
    assert front(["collect", *SMALL, "--workers", "2", "--out", str(tmp_path)]) == 130
    assert "interrupted: finished episodes are kept" in capsys.readouterr().err
    assert len(open_dataset(tmp_path)) == 4
    assert front(["collect", *SMALL, "--workers", "1", "--out", str(tmp_path)]) == 0
    assert "2 episodes (2 were there already)" in capsys.readouterr().out
    one, other = open_dataset(whole), open_dataset(tmp_path)
    assert one.metadata.drop(["shard"]).equals(other.metadata.drop(["shard"]))
    for field in one.fields:
        assert one.read(field).tobytes() == other.read(field).tobytes()
    assert one.read_robot("executed").tobytes() == other.read_robot("executed").tobytes()


def test_another_batch_is_another_data_set(whole, capsys):
    assert front(["collect", *SMALL, "--workers", "1", "--batch", "3", "--out", str(whole)]) == 2
    assert "rollout.batch is 2 there, 3 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "`--batch` must be 1 without workers, but got 2"),
        (["--workers", "-1"], "`--workers` must not be negative, but got -1"),
        (["--workers", "3"], "`workers` must be 1 to 2, the slots of a batch, but got 3"),
        (["--workers", "1", "--shard", "2/2"], "`--shard` must be i/n"),
        (["--workers", "1", "--batch", "0"], "`batch` must be positive, but got 0"),
    ],
)
def test_options_that_cannot_be_are_one_line_and_exit_code_2(tmp_path, capsys, args, message):
    assert front(["collect", *SMALL, *args, "--out", str(tmp_path / "data")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "data").exists()

"""What `ki fit` leaves acts: from demonstrations to rollouts, by the commands of the documentation."""

import json

import numpy as np
import pytest

from cli.main import main
from jax_bridge.pi0 import Pi0, Pi0Config, params_digest
from jax_bridge.pi0.config import PRESETS
from jax_bridge.policies.pi0_policy import Pi0Policy
from jax_bridge.shards import open_dataset
from tests.quick_compiler import quick_compiler
from tests.small_checkpoint import small_preset

TABLE = ["--env=tabletop", "--env.image_size=32"]


@pytest.fixture(autouse=True, scope="module")
def compiled_quickly():
    """See `quick_compiler`."""
    with quick_compiler():
        yield


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rolls")
    demos, tokenizer = str(folder / "demos"), str(folder / "tokenizer")
    words = ["--drive=demonstrator", "--record=demos", "--horizon=4", "--stride=8"]
    assert main(["collect", *TABLE, *words, "--tasks=0:2", "--episodes=0:3", f"--out={demos}"]) == 0
    assert main(["norm-stats", demos]) == 0
    assert main(["fast", "fit", demos, "--vocab_size=300", "--scale=5", f"--out={tokenizer}"]) == 0
    assert main(["fast", "attach", demos, f"--tokenizer={tokenizer}"]) == 0
    fit = ["--model.preset=pi0_smallest", "--run.steps=1", "--run.batch_size=2"]
    fit += [
        "--objective.flow_samples=1",
        "--run.insulation_every=0",
        "--run.validate_every=0",
        "--objective.remat=false",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "pi0_smallest", small_preset(horizon=4))
        given = ["ki", "fit", "-c", "ki_tabletop", f"--data.paths={demos}"]
        assert main([*given, *fit, f"--out={folder / 'run'}"]) == 0
    return folder / "run/checkpoints/1"


def watch(checkpoint, out, *words):
    """The shards of a policy that watches the demonstrator."""
    tasks = ["--drive=demonstrator", "--noise=0.5", "--tasks=0:2", "--episodes=5:6", "--stride=16"]
    policy = [f"--policy.checkpoint={checkpoint}", "--policy.num_steps=1", *words]
    assert main(["collect", *TABLE, *tasks, *policy, f"--out={out}"]) == 0
    return open_dataset(out)


def test_the_same_model_untrained_sees_the_same_and_says_something_else(checkpoint, tmp_path):
    trained = watch(checkpoint, tmp_path / "trained")
    untrained = watch(checkpoint, tmp_path / "untrained", "--policy.untrained=true")
    assert untrained.info.model["weights"] == "random"
    config = Pi0Config.from_json(untrained.info.model["config"])
    assert config == Pi0Config.from_json(trained.info.model["config"])
    assert untrained.info.model["params_digest"] == params_digest(Pi0(config).init(0))
    for same in ("tokenizer", "norm_stats", "recipe", "convention"):
        assert untrained.info.model[same] == trained.info.model[same]
    assert untrained.index["key"].to_pylist() == trained.index["key"].to_pylist()
    np.testing.assert_array_equal(untrained.read_robot("state"), trained.read_robot("state"))
    field = "action.hidden_states.action.mean"
    assert not np.array_equal(untrained.read(field), trained.read(field))


def test_untrained_needs_a_checkpoint_whose_weights_it_replaces():
    with pytest.raises(ValueError, match="`untrained` must be left out without a checkpoint"):
        Pi0Policy(preset="pi0_micro", untrained=True)


def test_a_trained_checkpoint_drives_collect(checkpoint, tmp_path):
    words = [*TABLE, "--tasks=0:2", "--episodes=5:6", "--max_steps=8", "--replan=4"]
    assert main(["collect", *words, f"--policy.checkpoint={checkpoint}", f"--out={tmp_path}"]) == 0
    dataset = open_dataset(tmp_path)
    assert dataset.info.model["weights"] == "checkpoint"
    assert dataset.index["timestep"].to_pylist() == [0, 4, 0, 4]
    assert np.isfinite(dataset.read_robot("actions")).all()


def test_a_trained_checkpoint_is_evaluated(checkpoint, tmp_path, capsys):
    words = ["--env.image_size=32", "--tasks=0:2", "--episodes=5:6", "--max_steps=8", "--videos=0"]
    given = [f"--checkpoint={checkpoint}", "--replan=4", f"--out={tmp_path}"]
    assert main(["ki", "eval", *given, *words]) == 0
    rates = json.loads((tmp_path / "report.json").read_text())["success"]["flow"]
    assert [rate["episodes"] for rate in rates] == [1, 1, 2]
    assert "flow head" in capsys.readouterr().out

"""The user's own package gives the same vectors as the checkpoint alone, or is refused."""

import pytest
import torch

from lightning_modules.capture.activation_capture import ActivationCapture
from lightning_modules.capture.capture_point import CapturePoint
from lightning_modules.capture.robovlms.installed_package import InstalledRoboVLMs
from lightning_modules.capture.robovlms.robovlms import RoboVLMs
from tests.lightning_modules.capture.conftest import frame_batch
from tests.lightning_modules.capture.stand_in_robovlms import Policy
from tests.lightning_modules.capture.tiny_robovlms import SIZES, save

TRAINER = "tests.lightning_modules.capture.stand_in_robovlms.BaseTrainer"


@pytest.fixture
def config(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path / "config.json")


@pytest.fixture
def trained(tensors):
    """The tensors of a policy of the package."""
    heads = {n: t for n, t in Policy().state_dict().items() if n.startswith("act_head")}
    kept = {n: t for n, t in tensors.items() if not n.startswith("act_head")}
    return {**kept, **heads}


@pytest.mark.parametrize("gripper", [False, True])
def test_both_ways_give_the_same_vectors(trained, config, tmp_path, gripper):
    path = save(tmp_path / "policy.pt", trained)
    batch = frame_batch(rows=2, gripper=gripper)
    installed = ActivationCapture(
        InstalledRoboVLMs(path, config, trainer=TRAINER),
        [CapturePoint(module="policy.act_head", name="act_head")],
    )
    alone = ActivationCapture(RoboVLMs(path, **SIZES), [CapturePoint(module="act_head")])
    norms = [capture.model.describe()["output_norm"] for capture in (installed, alone)]
    assert [norm["reaches"] for norm in norms] == ["policy.act_head", "act_head"]
    assert norms[0]["weight"] == norms[1]["weight"]
    assert norms[0]["bias"] == norms[1]["bias"]
    with torch.no_grad():
        (field, one), (same, other) = (
            *installed.capture(batch).values.items(), *alone.capture(batch).values.items(),
        )  # fmt: skip
    assert field == same == "context.act_head.input.tokens"
    torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


def test_weights_that_did_not_arrive_are_noticed(trained, config, tmp_path):
    """`strict=False` and one prefix too many: the package loads nothing and says nothing."""
    path = save(tmp_path / "policy.pt", trained, prefix="module.model.")
    with pytest.raises(
        ValueError, match=r"9\d of the policy's 9\d tensors are not those of the file"
    ):
        InstalledRoboVLMs(path, config, trainer=TRAINER)


def test_what_is_missing_is_named(trained, config, tmp_path):
    path = save(tmp_path / "policy.pt", trained)
    with pytest.raises(FileNotFoundError, match="the JSON file of the training, but /none is not"):
        InstalledRoboVLMs(path, "/none")
    with pytest.raises(
        ValueError, match=r"but got 'robovlms.train.base_trainer.BaseTrainer' .*Install"
    ):
        InstalledRoboVLMs(path, config)

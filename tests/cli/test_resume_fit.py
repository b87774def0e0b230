"""A killed fit goes on where it stood, inside an epoch, and ends with the same bits."""

import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from unittest import mock

import pytest
import torch

from cli.main import main
from lightning_modules import run_folder
from lightning_modules.linear_probe import LinearProbe

STEPS = 6
"""Training steps an epoch: 96 samples in batches of 16."""


class Watched:
    """Notes the rows of every training step, and may send a signal after one."""

    def __init__(self, kill_after: int | None = None, number: int = signal.SIGKILL) -> None:
        self.rows: list[list[int]] = []
        self.kill_after, self.number = kill_after, number
        self.step = LinearProbe.training_step

    def __enter__(self) -> "Watched":
        watched = self

        def training_step(module, batch, batch_idx):
            watched.rows.append(batch.rows.tolist())
            if len(watched.rows) == watched.kill_after:
                os.kill(os.getpid(), watched.number)
            return watched.step(module, batch, batch_idx)

        LinearProbe.training_step = training_step
        return self

    def __exit__(self, *error: object) -> None:
        LinearProbe.training_step = self.step


def arguments(planted, out, *more: str) -> list[str]:
    return [
        "fit", "-c", "probe", "--data.path", str(planted), "--data.batch_size", "16",
        "--data.layer", "2", "--trainer.max_epochs", "3", "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false", "--save_every", "2", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def no_drawing():
    """Figures take longer than all else here, and do not depend on who was killed."""
    with mock.patch.object(run_folder, "probe_figures", return_value=()):
        yield


def killed_fit(args: list[str], kill_after: int) -> None:
    with Watched(kill_after):
        main(args)


@pytest.fixture(scope="module")
def whole(planted, tmp_path_factory):
    """A fit that nothing interrupts, and the rows of its steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    with Watched() as watched:
        assert main(arguments(planted, out)) == 0
    assert len(watched.rows) == 3 * STEPS
    return out, watched.rows


@pytest.fixture(scope="module")
def killed(planted, tmp_path_factory):
    """A fit that was killed in the sixth step of its second epoch, after a checkpoint at four."""
    out = tmp_path_factory.mktemp("killed") / "run"
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=killed_fit, args=(arguments(planted, out), 2 * STEPS))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    return out


def weights(out) -> dict[str, torch.Tensor]:
    return torch.load(out / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Equal, where NaN (a penalty that nobody chose) equals itself."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True, msg=name)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_killed_fit_reads_the_rest_of_its_epoch_and_ends_with_the_same_bits(
    killed, whole, tmp_path, workers
):
    run = shutil.copytree(killed, tmp_path / "run")
    position = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["LatentDataModule"]
    assert position == {"epoch": 1, "done": 4 * 16, "samples": 96, "seed": 0}
    checkpoint = str(run / "checkpoints/last.ckpt")
    with Watched() as watched:
        assert main(["fit", "--ckpt_path", checkpoint, "--data.num_workers", workers]) == 0
    assert watched.rows == whole[1][STEPS + 4 :]
    done = list(itertools.chain(*whole[1][STEPS : STEPS + 4]))
    rest = list(itertools.chain(*watched.rows[:2]))
    assert sorted(done + rest) == sorted(itertools.chain(*whole[1][:STEPS]))
    same_bits(weights(run), weights(whole[0]))
    assert (run / "metrics/val.csv").read_bytes() == (whole[0] / "metrics/val.csv").read_bytes()


def test_a_killed_fit_can_go_on_in_batches_of_another_size(killed, whole, tmp_path):
    run = shutil.copytree(killed, tmp_path / "run")
    checkpoint = str(run / "checkpoints/last.ckpt")
    with Watched() as watched:
        assert main(["fit", "--ckpt_path", checkpoint, "--data.batch_size", "5"]) == 0
    assert [len(rows) for rows in watched.rows[:7]] == [5, 5, 5, 5, 5, 5, 2]
    rest = list(itertools.chain(*watched.rows[:7]))
    assert rest == list(itertools.chain(*whole[1][STEPS + 4 : 2 * STEPS]))
    assert sorted(itertools.chain(*watched.rows[7:])) == sorted(itertools.chain(*whole[1][:STEPS]))


def test_a_position_in_other_samples_is_refused_in_one_sentence(killed, tmp_path, capsys):
    run = shutil.copytree(killed, tmp_path / "run")
    checkpoint = str(run / "checkpoints/last.ckpt")
    assert main(["fit", "--ckpt_path", checkpoint, "--data.rollout_step", "0"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(1, marks=pytest.mark.slow),
        STEPS,
        pytest.param(STEPS + 3, marks=pytest.mark.slow),
    ],
)
def test_a_fit_that_is_asked_to_end_saves_its_place_and_says_how_to_go_on(
    planted, whole, tmp_path, capsys, step
):
    out = tmp_path / "run"
    with Watched(step, signal.SIGTERM) as first, pytest.raises(SystemExit, match="143"):
        main(arguments(planted, out))
    checkpoint = f"{out}/checkpoints/last.ckpt"
    assert f"go on: vla-lens fit --ckpt_path {checkpoint}\n" in capsys.readouterr().err
    with Watched() as second:
        assert main(["fit", "--ckpt_path", checkpoint]) == 0
    assert first.rows + second.rows == whole[1]
    same_bits(weights(out), weights(whole[0]))


@pytest.mark.parametrize("given", ["0", "x"])
def test_a_setting_out_of_range_is_refused(planted, tmp_path, capsys, given):
    args = arguments(planted, tmp_path / "run", "--save_every", given)
    assert main(args) == 2
    assert "save_every" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_runs_on_two_devices(planted, tmp_path):
    devices = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.batch_size", "8"]
    out = tmp_path / "run"
    command = [sys.executable, "-m", "cli.main", *arguments(planted, out, *devices)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder: ") == 1
    assert (out / "metrics/val.json").is_file()

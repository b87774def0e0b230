"""`vla-lens shards`: what a person sees."""

import numpy as np
import pytest

from cli.main import main
from jax_bridge.shards import DatasetInfo, EpisodeWriter, FieldSpec

FIELD = "vlm.hidden_states.text.mean"


@pytest.fixture
def dataset(tmp_path):
    spec = FieldSpec(
        name=FIELD, dtype="float32", shape=(2, 8), axes=("layer", "width"), layers=(0, 1)
    )
    info = DatasetInfo(fields={FIELD: spec}, capture={}, model={}, environment={}, seed=0)
    with EpisodeWriter(tmp_path / "data", info) as writer:
        for episode, success in enumerate((True, False, None)):
            with writer.episode(
                suite="toy", task_id=0, episode=episode, task_instruction="pick the cube"
            ) as recorder:
                for timestep in range(4):
                    latents = {FIELD: np.full((2, 8), timestep, np.float32)}
                    recorder.append(timestep=timestep, latents=latents)
                recorder.finish(success=success)
        writer.record_error(suite="toy", task_id=0, episode=3, message="boom")
    return tmp_path / "data"


def test_inspect_shows_episodes_success_fields_and_bytes(dataset, capsys):
    assert main(["shards", "inspect", str(dataset)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "episodes 3, of which 1 of 2 judged succeeded; 1 more ended in an error" in lines
    assert "toy 0 3 1/2 12 pick the cube" in lines
    assert f"{FIELD} float32 layer 2 x width 8 12 768 bytes" in lines


def test_inspect_shows_an_empty_data_set(tmp_path, capsys):
    info = DatasetInfo(fields={}, capture={}, model={}, environment={}, seed=0)
    EpisodeWriter(tmp_path, info).close()
    assert main(["shards", "inspect", str(tmp_path)]) == 0
    assert "samples      0" in capsys.readouterr().out


def test_verify_passes_whole_data_and_fails_damaged_data(dataset, capsys):
    assert main(["shards", "verify", str(dataset)]) == 0
    assert "1 shards, 12 samples" in capsys.readouterr().out
    (tar,) = dataset.glob("shards/*.tar")
    content = bytearray(tar.read_bytes())
    content[1600] ^= 1
    tar.write_bytes(bytes(content))
    assert main(["shards", "verify", str(dataset), "--workers", "1"]) == 1
    out = capsys.readouterr().out
    assert "toy-t000-e0000-0002, key toy-t000-e0000-s0000, member latents.safetensors" in out
    assert "1 problems" in out


def test_index_rebuilds_what_is_lost(dataset, capsys):
    before = (dataset / "index.parquet").read_bytes()
    for path in (dataset / "index.parquet", *dataset.glob("shards/*.parquet")):
        path.unlink()
    assert main(["shards", "index", str(dataset)]) == 0
    assert "12 samples in 1 shards" in capsys.readouterr().out
    assert (dataset / "index.parquet").read_bytes() == before


@pytest.mark.parametrize("command", ["index", "verify", "repair", "inspect"])
def test_a_folder_without_a_data_set_is_one_line(command, tmp_path, capsys):
    assert main(["shards", command, str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "has no dataset.json" in captured.err


@pytest.mark.parametrize("command", ["index", "verify", "repair", "inspect"])
def test_help_and_configs_work_for_each_command(command, dataset, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["shards", command, "--help"])
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        main(["shards", command, str(dataset), "--print_config"])
    assert ended.value.code == 0
    config = tmp_path / "config.yaml"
    config.write_text(f"dataset: {capsys.readouterr().out.rpartition('dataset: ')[2]}")
    assert main(["shards", command, "--config", str(config)]) == 0

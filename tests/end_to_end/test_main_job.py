"""The main job, as a newcomer types it: collect, inspect, verify, fit, test, report."""

import json
import re
import shlex

import pytest

from cli.configs import read_config
from cli.main import main
from jax_bridge.fast.vocabulary import OPENPI_SKIP
from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.ki.training.run_config import ModelChoice
from jax_bridge.pi0.config import PRESETS
from jax_bridge.policies.tokenizers import make_tokenizer
from tests.small_checkpoint import small_preset

TRAINER = ["--trainer.max_epochs", "20", "--trainer.enable_progress_bar", "false"]
SCALED_DOWN = {
    "demos_tabletop": ["--tasks=0:3", "--episodes=0:4", "--stride=4"],
    "questions": ["--scenes=50"],
    "ki_tabletop_words": ["--run.batch_size=2"],
    "ki_tabletop": ["--run.batch_size=2"],
    "eval": ["--tasks=0:1", "--max_steps=8"],
    "collect_trained": ["--tasks=0:3", "--episodes=0:10"],
    "probe": TRAINER,
}
"""What is added to the quickstart's commands, by a word of theirs."""


def probe(data, run, *options):
    """Fits, tests and reports; returns what `test` found."""
    fit = ["fit", "-c", "probe", "--data.path", str(data), *options, *TRAINER, "--out", str(run)]
    assert main(fit) == 0
    assert main(["test", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]) == 0
    assert main(["report", str(run)]) == 0
    return json.loads((run / "metrics" / "test.json").read_text())


def check_report(run):
    page = (run / "report.html").read_text()
    assert 'src="data:image/' in page
    assert 'src="http' not in page
    assert 'href="http' not in page
    return page


def test_the_main_job_finds_the_words_in_the_instructions_tokens(tmp_path, capsys):
    data = tmp_path / "data"
    collect = ["collect", "-c", "collect_tabletop", "--tasks", "0:3", "--episodes", "0:10"]
    assert main([*collect, "--env.image_size", "64", "--out", str(data)]) == 0
    assert main(["shards", "inspect", str(data)]) == 0
    assert "put the red cube in the blue bowl" in capsys.readouterr().out
    assert main(["shards", "verify", str(data)]) == 0

    words = probe(data, tmp_path / "words", "--data.expert", "vlm", "--data.region", "instruction")
    scores = [cell["score"] for cell in words["cells"]]
    assert len(scores) == 4
    assert max(scores) > 0.99

    page = check_report(tmp_path / "words")
    assert "pi05_micro" in page


def quickstart_commands(root, out):
    """The `vla-lens` commands of the Makefile's quickstart, as lists of words."""
    text = (root / "Makefile").read_text()
    recipe = re.search(r"^quickstart:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    assert recipe
    lines = recipe[1].replace("$(Q)", str(out))
    for name in ("STEPS", "WORDS", "SCENES"):
        lines = lines.replace(f"$({name})", "2")
    lines = lines.splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("\t$(BIN)/vla-lens ")]


def test_the_quickstarts_demonstrations_fit_the_policy_that_is_trained_on_them(root, tmp_path):
    policy, demos = read_config("ki_tabletop"), read_config("demos_tabletop")
    config = ModelChoice(**policy["model"]).config()
    assert demos["horizon"] == config.action_horizon
    watched = read_config("collect_trained")
    assert demos["env"]["image_size"] == watched["env"]["image_size"] == config.vision.image_size
    learnt = next(words for words in quickstart_commands(root, tmp_path) if "fast" in words)
    codes = int(learnt[learnt.index("--vocab_size") + 1])
    tokenizer = make_tokenizer(policy["data"]["tokenizer"])
    assert FastIds.of(tokenizer, codes, rows=config.vocab_size, skip=OPENPI_SKIP, size=40)
    first, last = (int(number) for number in demos["episodes"].split(":"))
    assert not set(range(first, last)) & set(range(*map(int, watched["episodes"].split(":"))))


@pytest.mark.slow
def test_the_makefiles_quickstart_trains_and_compares_with_untrained_weights(
    root, tmp_path, monkeypatch
):
    preset = read_config("ki_tabletop")["model"]["preset"]
    monkeypatch.setitem(PRESETS, preset, small_preset(horizon=8))
    for words in quickstart_commands(root, tmp_path):
        added = [option for word, more in SCALED_DOWN.items() if word in words for option in more]
        assert main([*words, *added]) == 0, words
    for run in ("vlm", "action"):
        found = json.loads((tmp_path / run / "metrics/test.json").read_text())
        assert "untrained" in found["cells"][0]["controls"]
        assert "untrained policy" in check_report(tmp_path / run)
    assert json.loads((tmp_path / "success/report.json").read_text())["success"]["flow"]


@pytest.mark.libero
def test_the_main_job_runs_on_the_real_simulator(tmp_path):
    data = tmp_path / "data"
    collect = [
        *("collect", "--env", "libero", "--env.suite", "libero_object"),
        *("--policy.preset", "pi05_micro", "--drive", "demonstrator", "--noise", "0.4"),
        *("--tasks", "0:2", "--episodes", "0:4", "--stride", "20", "--max-steps", "41"),
        *("--capture", "pooled", "--out", str(data)),
    ]
    assert main(collect) == 0
    found = probe(
        data,
        tmp_path / "run",
        *("--data.expert", "vlm", "--data.region", "instruction"),
        *("--data.fractions", "[0.5, 0.25, 0.25]"),
    )
    assert max(cell["score"] for cell in found["cells"]) > 0.9
    page = check_report(tmp_path / "run")
    assert "libero_object" in page
    assert "pi05_micro" in page

"""`vla-lens export`: from a data set to files, and one sentence where it cannot."""

import numpy as np

from cli.main import main
from tests.planted import TEXT


def test_a_field_becomes_npy(planted, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["export", str(planted), "--field", TEXT, "--format", "npy", "--layer", "0", "5"]
    assert main([*words, "--out", str(out), "--where", "{task_id: [0, 1]}"]) == 0
    said = capsys.readouterr().out
    assert f"{TEXT}: " in said
    array = np.load(out / f"{TEXT}.npy")
    assert f"{len(array)} samples" in said
    assert array.shape[1] == 2
    assert main([*words, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "`out` must be a new or empty folder" in said
    assert said.count("\n") == 1

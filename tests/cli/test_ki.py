"""`vla-lens ki`: its sub-commands."""

import pytest
from PIL import Image

from cli.main import main


def test_its_commands_are_listed_and_a_misspelt_one_is_named(capsys):
    assert main(["ki"]) == 0
    assert "explain-mask" in capsys.readouterr().out
    assert main(["ki", "fitt"]) == 2
    error = capsys.readouterr().err
    assert "but got 'fitt'. Did you mean 'fit'?" in error
    assert error.count("\n") == 1


def test_the_mask_is_printed_and_drawn(tmp_path, capsys):
    picture = tmp_path / "mask.png"
    words = ["--model.preset=pi0_micro", "--fast=5", f"--out={picture}"]
    assert main(["ki", "explain-mask", *words]) == 0
    said = capsys.readouterr().out
    assert "causal" in said
    assert "FAST" in said
    colours = {colour for _, colour in Image.open(picture).convert("RGB").getcolors(1 << 24)}
    assert {(0x25, 0x63, 0xEB), (0xF5, 0x9E, 0x0B), (0xF3, 0xF4, 0xF6)} <= colours


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt=99"], "`prompt` must lie in [1, 48]"),
        (["--out=mask.jpg"], "`--out` must end in .png, but got mask.jpg"),
        (["--objective.mode=both"], "`mode` must be one of insulate, joint"),
    ],
)
def test_a_mask_that_cannot_be_drawn_is_one_sentence(words, message, capsys):
    assert main(["ki", "explain-mask", "--model.preset=pi0_micro", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1

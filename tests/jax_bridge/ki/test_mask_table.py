"""The table of `ki explain-mask` is the specification's."""

import numpy as np
import pytest

from jax_bridge.ki.mask_table import STOPPED, mask_table
from jax_bridge.pi0 import Pi0Config

PI0 = Pi0Config.preset("pi0_micro", max_token_len=6)
TABLE = {
    "I": {"I": "all", "P": "all"},
    "P": {"I": "all", "P": "all"},
    "T": {"I": "all", "P": "all", "T": "causal"},
    "F": {"I": "all", "P": "all", "T": "all", "F": "causal"},
    "S": {"I": "stopped all", "P": "stopped all", "T": "stopped all", "S": "all"},
    "A": {"I": "stopped all", "P": "stopped all", "T": "stopped all", "S": "all", "A": "all"},
}
LETTERS = ("I", "I", "I", "P", "T", "F", "S", "A")


def test_the_picture_shows_the_specifications_table():
    table = mask_table(PI0, text=3, fast=4)
    assert table.names[3:] == ("prompt", "text", "FAST", "state", "actions")
    assert sum(table.sizes) == len(table.values)
    for query, row in zip(LETTERS, table.blocks(), strict=True):
        expected = [TABLE[query].get(key, "none") for key in LETTERS]
        assert row == expected, query


def test_padding_and_missing_cameras_are_not_read_and_do_not_read():
    table = mask_table(PI0, fast=2, prompt=4, cameras=("base",))
    tokens = PI0.vision.tokens
    dead = [*range(tokens, 3 * tokens), 3 * tokens + 4, 3 * tokens + 5]
    assert not table.values[:, dead].any()
    assert not table.values[dead].any()
    assert table.blocks()[0][3] == "valid"


@pytest.mark.parametrize(
    ("mode", "names", "stopped"),
    [
        ("insulate", ("prompt", "text", "FAST", "state", "actions"), True),
        ("joint", ("prompt", "text", "FAST", "state", "actions"), False),
        ("flow_only", ("prompt", "state", "actions"), False),
        ("fast_only", ("prompt", "text", "FAST"), False),
    ],
)
def test_each_mode_has_its_own_tokens_and_only_insulate_stops_a_gradient(mode, names, stopped):
    table = mask_table(PI0, mode=mode, text=3, fast=4)
    assert table.names[3:] == names
    assert (table.values == STOPPED).any() == stopped
    assert np.isin(table.values, [0, 1, 2]).all()


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"`prompt` must lie in \[1, 6\].* got 7, 0 and 0"):
        mask_table(PI0, prompt=7)

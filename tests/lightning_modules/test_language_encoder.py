"""The instructions of a language report, by any encoder."""

import numpy as np
import pytest

from lightning_modules.language.instruction_table import embed_instructions
from tests.datamodules.tiny_encoders import write_t5

TEXTS = ["open the drawer", "put the cube in the bowl", "open the bowl"]


def test_a_folder_takes_the_place_of_the_built_in_encoder(tmp_path):
    by_folder = embed_instructions(TEXTS, str(write_t5(tmp_path / "t5")))
    built_in = embed_instructions(TEXTS)
    for table in (by_folder, built_in):
        np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1)
    assert not np.allclose(by_folder @ by_folder.T, built_in @ built_in.T, atol=1e-3)


def test_instructions_that_are_all_the_same_are_refused():
    with pytest.raises(ValueError, match=r"different words, but got .*open the drawer.*tfidf"):
        embed_instructions(TEXTS[:1])

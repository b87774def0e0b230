"""Words that are known are one token; whatever is not survives in bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jax_bridge.environments.tabletop.tasks import TASKS
from jax_bridge.policies.tokenizers import make_tokenizer, tokenize_prompt
from jax_bridge.policies.tokenizers.whole_words import FIRST_BYTE, ROOM, WORDS, WordTokenizer

TOKENIZER = WordTokenizer()
KNOWN = st.sampled_from(["red", "the", "12", "-1", "255", "256", " ", "  ", ":", ",", "é", "cub"])


@given(st.lists(KNOWN).map("".join) | st.text())
def test_every_text_comes_back(text):
    encoded = TOKENIZER.encode(text, bos=True, eos=True)
    lost = text.encode("utf-8", errors="replace").decode()
    assert TOKENIZER.decode(encoded.ids) == lost
    assert len(encoded.ids) == len(encoded.spans)
    assert max(encoded.ids) < TOKENIZER.vocabulary_size()


@given(st.lists(KNOWN).map("".join))
def test_spans_cover_the_text_in_order_and_say_what_each_token_stands_for(text):
    encoded = TOKENIZER.encode(text)
    reached = 0
    for start, end in dict.fromkeys(encoded.spans):
        assert start == reached
        reached = end
    assert reached == len(text)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_an_instruction_of_the_tabletop_is_a_token_a_word(task):
    ids = TOKENIZER.encode(task.instruction).ids
    assert len(ids) == len(task.instruction.split())
    assert all(i < FIRST_BYTE for i in ids)


def test_each_bin_of_the_state_is_one_token_and_the_masks_name_the_right_words():
    prompt = tokenize_prompt(
        make_tokenizer("words"), "put the red cube in the blue bowl",
        state=np.array([-1.5, 0.0, 1.7]), max_length=64,
    )  # fmt: skip
    words = TOKENIZER.decode(prompt.ids[prompt.instruction_mask])
    assert words == "put the red cube in the blue bowl"
    assert TOKENIZER.decode(prompt.ids[prompt.state_mask]) == "-1 128 255"
    assert prompt.state_mask.sum() == 3
    assert not prompt.truncated


def test_every_word_is_there_once_and_there_is_room_for_more():
    assert len(set(WORDS)) == len(WORDS) < ROOM
    assert make_tokenizer("words").describe()["words"] == len(WORDS)

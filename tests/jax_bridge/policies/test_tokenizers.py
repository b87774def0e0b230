import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from jax_bridge.ki.data.fast_ids import FastIds
from jax_bridge.policies.tokenizers import (
    SAID_FIRST,
    TOKENIZERS,
    Encoding,
    Tokenizer,
    discretise_state,
    make_tokenizer,
    tokenize_prompt,
)
from jax_bridge.policies.tokenizers.byte_level import ByteTokenizer
from jax_bridge.policies.tokenizers.paligemma import SentencePieceTokenizer
from jax_bridge.policies.tokenizers.prompt import clean_instruction

DATA = Path(__file__).parents[2] / "data"
FACTS = json.loads((DATA / "openpi_processing_facts.json").read_text())
STATE = np.array([-1.5, -1.0, 0.0, 0.5, 0.25, 0.999, 1.0, 1.7])
DIGITS = "-1 0 128 192 160 255 255 255"


class RecordingTokenizer(ByteTokenizer):
    """Notes what it is asked to encode."""

    def __init__(self):
        self.calls = []

    def encode(self, text, *, bos=False, eos=False):
        self.calls.append({"text": text, "add_bos": bos, "add_eos": eos})
        return super().encode(text, bos=bos, eos=eos)


def _train(**options):
    """A tiny sentencepiece model with PaliGemma's marks, as bytes."""
    sentences = [
        "Task: pick up the black bowl, State: -1 0 128 255;",
        "put the red cube in the blue bowl",
        "open the drawer. do something., State: 12 3 45",
        "Action: 6 7 8 9",
    ] * 10
    model = io.BytesIO()
    settings = {
        "vocab_size": 340,
        "model_type": "bpe",
        "byte_fallback": True,
        "pad_id": 0,
        "eos_id": 1,
        "bos_id": 2,
        "unk_id": 3,
        "minloglevel": 2,
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, **{**settings, **options}
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """As PaliGemma's: identity normalisation, no space in front, digits one by one."""
    path = tmp_path_factory.mktemp("tokenizer") / "tiny.model"
    path.write_bytes(
        _train(
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            split_digits=True,
            user_defined_symbols=["\n", ".,"],
        )
    )
    return path


@pytest.fixture(scope="module")
def default_model_path(tmp_path_factory):
    """With sentencepiece's own normalisation: NFKC, extra spaces dropped, a space put in front."""
    path = tmp_path_factory.mktemp("tokenizer") / "default.model"
    path.write_bytes(_train(split_digits=True))
    return path


def _text_of(tokenizer, prompt, mask):
    return tokenizer.decode(prompt.ids[mask].tolist())


@pytest.mark.parametrize("fact", FACTS["paligemma_tokenize_recorded"])
def test_prompts_are_laid_out_as_openpi_lays_them_out(fact):
    # The goldens' stand-in tokenizer gives id 1000 + byte, and so does ours.
    tokenizer = RecordingTokenizer()
    state = None if fact["state"] is None else np.asarray(fact["state"])
    prompt = tokenize_prompt(tokenizer, fact["prompt"], state=state, max_length=fact["max_len"])
    assert tokenizer.calls == fact["encode_calls"]
    assert prompt.ids.shape == prompt.mask.shape == (fact["max_len"],)
    assert prompt.mask.sum() == fact["n_valid"]
    assert prompt.ids[:8].tolist() == fact["tokens_first8"]
    assert prompt.ids[fact["n_valid"] - 1] == fact["token_last_valid"]
    assert prompt.ids[-1] == fact["pad_value"]


@pytest.mark.parametrize("fact", FACTS["fast_tokenize_recorded"])
def test_openpis_layout_for_fast_is_openpis(fact):
    tokenizer = RecordingTokenizer()
    prompt = tokenize_prompt(
        tokenizer, fact["prompt"], state=np.asarray(fact["state"]), max_length=fact["max_len"],
        prompt_layout="openpi_fast",
    )  # fmt: skip
    assert tokenizer.calls == fact["encode_calls"][:1]
    causal = np.asarray(fact["ar_mask"], bool)
    read, said = np.asarray(fact["token_mask"], bool) & ~causal, causal
    np.testing.assert_array_equal(prompt.ids[prompt.mask], np.asarray(fact["tokens"])[read])
    if fact["fast_tokens"] is None:
        assert not said.any()
        return
    codes = np.asarray(fact["fast_tokens"])
    fast = FastIds.of(
        tokenizer, 2048, rows=257152, skip=128, size=40, start=SAID_FIRST["openpi_fast"]
    )
    ids, mask = fast.target(codes)
    np.testing.assert_array_equal(ids[mask], np.asarray(fact["tokens"])[said])
    np.testing.assert_array_equal(fast.codes_of(ids[mask]), codes)


def test_openpis_layout_for_fast_needs_a_state():
    with pytest.raises(
        ValueError, match=r"`state` must be given for the prompt layout openpi_fast"
    ):
        tokenize_prompt(ByteTokenizer(), "a", state=None, max_length=9, prompt_layout="openpi_fast")


def test_states_fall_into_openpis_bins_unclipped():
    fact = FACTS["state_discretisation"]
    assert discretise_state(np.asarray(fact["state"])).tolist() == fact["bins"]


@pytest.mark.parametrize(
    "instruction",
    ["pick up the black_bowl", "öffne die Schublade 猫🥣", "State: 3;\nAction: ", "a", "", " _ "],
)
@pytest.mark.parametrize("state", [None, STATE])
@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_masks_decode_to_the_instruction_and_the_state(instruction, state, kind, model_path):
    tokenizer = ByteTokenizer() if kind == "bytes" else SentencePieceTokenizer(str(model_path))
    prompt = tokenize_prompt(tokenizer, instruction, state=state, max_length=200)
    words = clean_instruction(instruction)
    found = _text_of(tokenizer, prompt, prompt.instruction_mask)
    # A sentencepiece token may carry the space before its word.
    assert (found if kind == "bytes" else found.strip()) == (
        words if kind == "bytes" else words.strip()
    )
    found = _text_of(tokenizer, prompt, prompt.state_mask).strip()
    assert found == ("" if state is None else DIGITS)
    assert not (prompt.instruction_mask & prompt.state_mask).any()
    assert not (prompt.instruction_mask & ~prompt.mask).any()
    assert not prompt.truncated


@given(instruction=st.text(max_size=40), max_length=st.integers(1, 120), with_state=st.booleans())
def test_byte_masks_are_exact_for_any_text_and_any_cut(instruction, max_length, with_state):
    state = STATE if with_state else None
    tokenizer = ByteTokenizer()
    words = clean_instruction(instruction)
    before = "Task: " if with_state else ""
    prompt = tokenize_prompt(tokenizer, instruction, state=state, max_length=max_length)
    start = 1 + len(before)
    length = len(words.encode("utf-8", errors="replace"))
    expected = np.zeros(max_length, bool)
    expected[start : start + length] = True
    np.testing.assert_array_equal(prompt.instruction_mask, expected)
    expected[:] = False
    if with_state:
        start += length + len(", State: ")
        expected[start : start + len(DIGITS)] = True
    np.testing.assert_array_equal(prompt.state_mask, expected)


@given(instruction=st.text("ab bowl.ï猫ﬁ\n_🥣", max_size=12), cut=st.integers(1, 60))
def test_sentencepiece_masks_of_a_cut_prompt_begin_like_those_of_the_whole(
    instruction, cut, model_path
):
    tokenizer = SentencePieceTokenizer(str(model_path))
    whole = tokenize_prompt(tokenizer, instruction, state=STATE, max_length=200)
    short = tokenize_prompt(tokenizer, instruction, state=STATE, max_length=cut)
    for name in ("ids", "mask", "instruction_mask", "state_mask"):
        np.testing.assert_array_equal(getattr(short, name), getattr(whole, name)[:cut])
    assert short.truncated == (whole.mask.sum() > cut)


def test_a_token_that_holds_the_last_sign_of_the_instruction_belongs_to_it(model_path):
    # ".," is one piece of this model, and straddles instruction and layout.
    tokenizer = SentencePieceTokenizer(str(model_path))
    prompt = tokenize_prompt(tokenizer, "do something.", state=STATE, max_length=200)
    assert _text_of(tokenizer, prompt, prompt.instruction_mask).strip() == "do something.,"


def test_bytes_of_one_character_share_its_span(model_path):
    encoding = SentencePieceTokenizer(str(model_path)).encode("a猫b")
    assert encoding.spans == ((0, 1), (1, 2), (1, 2), (1, 2), (2, 3))


def test_spans_hold_under_sentencepieces_own_normalisation(default_model_path):
    # A ligature becomes two pieces, extra spaces go, a space is put in front.
    tokenizer = SentencePieceTokenizer(str(default_model_path))
    prompt = tokenize_prompt(tokenizer, "pick  up ﬁve bowl", state=STATE, max_length=200)
    found = _text_of(tokenizer, prompt, prompt.instruction_mask)
    assert found.split() == ["pick", "up", "five", "bowl"]
    assert _text_of(tokenizer, prompt, prompt.state_mask).strip() == DIGITS


def test_sentencepiece_ids_are_those_of_the_library(model_path):
    tokenizer = SentencePieceTokenizer(str(model_path))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(model_path))
    text = "Task: pick up the 猫, State: -1 0;\nAction: "
    encoding = tokenizer.encode(text, bos=True, eos=True)
    assert list(encoding.ids) == [2, *processor.encode(text), 1]
    assert tokenizer.decode([0, 0, *encoding.ids]) == text
    assert tokenizer.vocabulary_size() == 340


def test_a_cut_prompt_is_warned_of_and_flagged(caplog):
    with caplog.at_level(logging.WARNING):
        prompt = tokenize_prompt(ByteTokenizer(), "x" * 60, max_length=48)
    assert prompt.truncated
    assert prompt.mask.all()
    assert "62 tokens, of which the model reads the first 48" in caplog.text


@pytest.mark.parametrize("end", range(1, 6))
def test_a_cut_inside_a_character_keeps_its_bytes_in_the_mask(end):
    prompt = tokenize_prompt(ByteTokenizer(), "é🥣", max_length=1 + end)
    assert prompt.instruction_mask.tolist() == [False] + [True] * end


def test_the_tokenizers_by_name_satisfy_the_protocol(model_path):
    assert isinstance(make_tokenizer("bytes"), ByteTokenizer)
    assert isinstance(make_tokenizer(str(model_path)), SentencePieceTokenizer)
    assert set(TOKENIZERS) == {"bytes", "paligemma", "words"}
    for name in ("bytes", "words", str(model_path)):
        tokenizer = make_tokenizer(name)
        assert isinstance(tokenizer, Tokenizer)
        assert isinstance(tokenizer.encode("a"), Encoding)
        assert max(tokenizer.encode("aé猫").ids) < tokenizer.vocabulary_size()


def test_a_sentencepiece_model_is_known_by_its_content(model_path, tmp_path):
    elsewhere = tmp_path / "copy.model"
    elsewhere.write_bytes(model_path.read_bytes())
    first, second = (SentencePieceTokenizer(str(p)).describe() for p in (model_path, elsewhere))
    assert first == second
    assert first["kind"] == "sentencepiece"


def test_an_absent_model_says_what_is_missing_and_how_to_get_it(tmp_path):
    tokenizer = make_tokenizer(str(tmp_path / "paligemma.model"))  # nothing is read yet
    with pytest.raises(
        FileNotFoundError, match=r"paligemma\.model' could not be read .*Download gs://big_vision"
    ):
        tokenizer.encode("a")


def test_a_store_without_driver_says_so():
    with pytest.raises(FileNotFoundError, match=r"'nowhere://a/b' could not be read .*remote"):
        make_tokenizer("nowhere://a/b").encode("a")


def test_a_file_that_is_no_sentencepiece_model_is_refused(tmp_path):
    path = tmp_path / "other.model"
    path.write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"must be a sentencepiece model, .*\(11 bytes\)"):
        make_tokenizer(str(path)).encode("a")

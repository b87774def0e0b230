"""FAST: DCT, BPE, strict decoding, the published files, places in the vocabulary."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer

from jax_bridge.fast.coefficients import from_coefficients, rounding_bound, to_coefficients
from jax_bridge.fast.failures import (
    BrokenTextError,
    CoefficientRangeError,
    FastDecodeError,
    RangeError,
    UnknownCodeError,
    WrongLengthError,
)
from jax_bridge.fast.files import load_tokenizer, save_tokenizer
from jax_bridge.fast.learn import learn_tokenizer
from jax_bridge.fast.tokenizer import FastSettings, FastTokenizer
from jax_bridge.fast.vocabulary import CodeRange

T, D = 10, 3


def smooth_chunks(n, seed=0, steps=T, dims=D):
    random = np.random.default_rng(seed)
    time = np.linspace(0, 1, steps)[None, :, None]
    speed, phase = random.uniform(0.2, 1.5, (2, n, 1, dims))
    chunks = np.sin(2 * np.pi * (time * speed + phase)) * random.uniform(0.2, 1, (n, 1, dims))
    return chunks + 0.01 * random.normal(size=chunks.shape)


@pytest.fixture(scope="module")
def tokenizer():
    return learn_tokenizer(smooth_chunks(400), vocab_size=512)


def test_17_coefficients_are_those_of_the_written_out_cosine_sum():
    chunk = smooth_chunks(1)
    spectrum = np.zeros((T, D))
    for k in range(T):
        weights = np.cos(np.pi * k * (2 * np.arange(T) + 1) / (2 * T))
        spectrum[k] = (weights[:, None] * chunk[0]).sum(0) * np.sqrt((1 if k == 0 else 2) / T)
    expected = np.rint(10 * spectrum).astype(int).reshape(1, -1)
    np.testing.assert_array_equal(to_coefficients(chunk, 10.0), expected)


def test_frequency_zero_of_every_dimension_comes_first():
    constant = np.tile([0.1, 0.2, 0.3], (1, T, 1))
    coefficients = to_coefficients(constant, 10.0)[0]
    assert coefficients[:D].tolist() == [3, 6, 9]  # 0.1 * sqrt(10) * 10 = 3.16, ...
    assert not coefficients[D:].any()


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.floats(1.0, 50.0))
@settings(max_examples=60, deadline=None)
def test_17_the_round_trip_stays_within_the_bound_of_rounding(seed, steps, scale):
    chunk = np.random.default_rng(seed).uniform(-1, 1, (2, steps, 2))
    back = from_coefficients(to_coefficients(chunk, scale), scale, steps=steps, dims=2)
    assert np.abs(back - chunk).max() <= rounding_bound(steps, scale) + 1e-12


def test_encoding_and_decoding_lose_the_rounding_alone(tokenizer):
    chunks = smooth_chunks(50, seed=1)
    encoded = tokenizer.encode(chunks)
    back = tokenizer.decode(encoded.codes, steps=T, dims=D).actions
    scale = tokenizer.settings.scale
    rounded = from_coefficients(to_coefficients(chunks, scale), scale, steps=T, dims=D)
    np.testing.assert_array_equal(back, rounded)
    assert np.abs(back - chunks).max() <= rounding_bound(T, scale)


def test_codes_are_shorter_than_the_numbers_they_stand_for(tokenizer):
    lengths = [len(codes) for codes in tokenizer.encode(smooth_chunks(50, seed=2)).codes]
    assert np.mean(lengths) < 0.8 * T * D


def test_a_chunk_has_the_same_codes_alone_and_among_others(tokenizer):
    chunks = smooth_chunks(20, seed=3)
    together = tokenizer.encode(chunks).codes
    for chunk, codes in zip(chunks, together, strict=True):
        np.testing.assert_array_equal(tokenizer.encode(chunk[None]).codes[0], codes)


def test_character_zero_at_the_end_is_not_lost():
    low = -3
    bpe = learn_tokenizer(smooth_chunks(50), vocab_size=512)
    shifted = FastTokenizer(bpe._bpe, FastSettings(min_token=low, vocab_size=512))
    chunk = from_coefficients(np.full((1, T * D), low), 10.0, steps=T, dims=D)
    codes = shifted.encode(chunk).codes[0]
    back = shifted.decode([codes], steps=T, dims=D).actions
    np.testing.assert_allclose(back, chunk, atol=1e-12)


@given(st.lists(st.integers(-5, 700), max_size=60))
@settings(max_examples=400, deadline=None)
def test_17_fuzzed_codes_never_crash_and_never_give_an_action_out_of_range(tokenizer, codes):
    decoded = tokenizer.decode([codes], steps=T, dims=D, on_error="zeros")
    limit = tokenizer.settings.largest_action + rounding_bound(T, tokenizer.settings.scale)
    assert np.abs(decoded.actions).max() <= limit
    if decoded.failed:
        assert not decoded.actions.any()
        with pytest.raises(FastDecodeError, match=str(decoded.errors[0]).split("(")[0][:20]):
            tokenizer.decode([codes], steps=T, dims=D)


def codes_of_text(tokenizer, text):
    return tokenizer._bpe.encode(text).ids


def test_each_way_to_be_wrong_has_an_error_of_its_own():
    tokenizer = learn_tokenizer(smooth_chunks(100), scale=50.0, vocab_size=512)
    good = tokenizer.encode(smooth_chunks(1)).codes[0].tolist()
    low, high = tokenizer.range
    # Characters above 127 have two bytes; the code of a first byte alone is half a character.
    half = next(c for c in range(tokenizer.codes) if tokenizer._bpe.id_to_token(c) == "Â")
    wrong = [
        (UnknownCodeError, [*good, tokenizer.codes], f"code {tokenizer.codes} is not"),
        (
            WrongLengthError,
            codes_of_text(tokenizer, chr(-low) * (T * D + 1)),
            f"hold {T * D + 1} coefficients",
        ),
        (RangeError, codes_of_text(tokenizer, chr(high - low) * (T * D)), "is larger than"),
        (BrokenTextError, [*good[:-1], half], "in the middle of a character"),
    ]
    for kind, codes, words in wrong:
        with pytest.raises(kind, match=words):
            tokenizer.decode([codes], steps=T, dims=D)
    codes = [good, *(codes for _, codes, _ in wrong)]
    decoded = tokenizer.decode(codes, steps=T, dims=D, on_error="zeros")
    assert decoded.failed == 4
    assert [type(error) for error in decoded.errors] == [type(None), *(kind for kind, *_ in wrong)]


def test_a_coefficient_without_a_character_is_refused_or_clipped_and_counted(tokenizer):
    chunk = np.zeros((2, T, D))
    chunk[1, :, 2] = -40.0
    with pytest.raises(CoefficientRangeError, match="got -1265 in dimension 2 of chunk 1"):
        tokenizer.encode(chunk)
    encoded = tokenizer.encode(chunk, out_of_range="clip")
    assert encoded.clipped.tolist() == [0, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_actions_that_are_not_finite_are_refused(tokenizer, bad):
    chunk = smooth_chunks(3)
    chunk[2, 0, 0] = bad
    with pytest.raises(ValueError, match="in chunk 2"):
        tokenizer.encode(chunk)


def test_a_tokenizer_is_the_same_after_saving_and_loading(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path / "fast")
    loaded = load_tokenizer(str(tmp_path / "fast"))
    assert loaded.describe() == tokenizer.describe()
    chunks = smooth_chunks(5, seed=4)
    for a, b in zip(tokenizer.encode(chunks).codes, loaded.encode(chunks).codes, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(FileExistsError, match="holds one"):
        save_tokenizer(tokenizer, tmp_path / "fast")


def test_files_laid_out_as_the_published_ones_are_read(tmp_path):
    """What the published processor's own `fit` makes: a trained ByteLevelBPETokenizer."""
    chunks = smooth_chunks(100)
    coefficients = to_coefficients(chunks, 10.0)
    low, high = int(coefficients.min()), int(coefficients.max())
    bpe = ByteLevelBPETokenizer()
    texts = ["".join(map(chr, row - low)) for row in coefficients]
    bpe.train_from_iterator(texts, vocab_size=600, min_frequency=2, show_progress=False)
    bpe.save(str(tmp_path / "tokenizer.json"))
    entry = {
        "action_dim": None, "time_horizon": None, "scale": 10, "vocab_size": 2048,
        "min_token": low, "processor_class": "UniversalActionProcessor",
        "auto_map": {"AutoProcessor": "processing_action_tokenizer.UniversalActionProcessor"},
    }  # fmt: skip
    (tmp_path / "processor_config.json").write_text(json.dumps(entry))
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.range[0] == low
    assert tokenizer.range[1] >= high
    for chunk, text in zip(chunks, texts, strict=True):
        assert tokenizer.encode(chunk[None]).codes[0].tolist() == bpe.encode(text).ids


def test_what_is_no_tokenizer_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="could not be read"):
        load_tokenizer(str(tmp_path))
    (tmp_path / "processor_config.json").write_text('{"scale": 10}')
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="no min_token, vocab_size"):
        load_tokenizer(str(tmp_path))
    whole = {"scale": 10, "min_token": -5, "vocab_size": 512}
    (tmp_path / "processor_config.json").write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="must hold a BPE"):
        load_tokenizer(str(tmp_path))


def test_learning_refuses_what_cannot_be_learnt():
    with pytest.raises(ValueError, match="must be finite"):
        learn_tokenizer(np.full((1, T, D), np.nan))
    with pytest.raises(ValueError, match="`vocab_size` must be at least"):
        learn_tokenizer(smooth_chunks(10), vocab_size=8)
    with pytest.raises(ValueError, match="different DCT coefficients"):
        learn_tokenizer(smooth_chunks(10) * 1e5)


def test_codes_stand_at_the_end_of_the_table_as_in_openpi():
    codes = np.array([0, 1, 5, 1023, 1024, 2047])
    places = CodeRange(codes=2048)
    assert places.to_ids(codes).tolist() == [257023, 257022, 257018, 256000, 255999, 254976]
    np.testing.assert_array_equal(places.to_codes(places.to_ids(codes)), codes)
    assert not places.are_codes(np.array([254975, 257024])).any()


def test_a_table_too_small_for_prompts_and_codes_is_an_error():
    CodeRange(codes=512, vocab_size=2048, prompt_ids=1256)
    with pytest.raises(ValueError, match="at most 664 codes"):
        CodeRange(codes=665, vocab_size=2048, prompt_ids=1256)
    with pytest.raises(ValueError, match=r"got 0 to 2048"):
        CodeRange(codes=2048).to_ids(np.array([0, 2048]))
    with pytest.raises(ValueError, match="got 257024"):
        CodeRange(codes=2048).to_codes(np.array([257024]))

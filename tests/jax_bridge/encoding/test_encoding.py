"""Recorded frames become latents as if the policy had stood there; sums lose nothing."""

import zlib

import h5py
import numpy as np
import pytest

from jax_bridge.encoding import EncodePlan, Encoder, Reducer, load_moments
from jax_bridge.encoding import reducer as reducer_module
from jax_bridge.episodes import survey
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.policies.policy import PolicyOutput
from jax_bridge.shards import FieldSpec, FingerprintError, open_dataset
from tests.jax_bridge.episodes.episode_files import picture, write_libero

POOLED = "vlm.hidden_states.text.mean"
TOKENS = "vlm.hidden_states.instruction.tokens"
SPECS = {
    POOLED: FieldSpec(
        name=POOLED, dtype="float32", shape=(2, 3), axes=("layer", "width"), layers=(0, 1)
    ),
    TOKENS: FieldSpec(
        name=TOKENS, dtype="bfloat16", shape=(2, 4, 3), axes=("layer", "token", "width"),
        layers=(0, 1),
    ),
    "mask.instruction": FieldSpec(
        name="mask.instruction", dtype="bool", shape=(4,), axes=("token",)
    ),
    "valid.text": FieldSpec(name="valid.text", dtype="bool", shape=(), axes=()),
}  # fmt: skip


class Echo:
    """Answers with numbers that tell what it was shown; batches keep their size."""

    action_horizon = 4

    def __init__(self):
        self.sizes = []

    def describe(self):
        return {"preset": "echo"}

    def fields(self, capture):
        return SPECS

    def seen_images(self, observation):
        return observation.images

    def infer(self, observation, *, capture=None, noise_key=()):
        seed = zlib.crc32(repr(tuple(noise_key)).encode())
        random = np.random.default_rng(seed)
        red = float(observation.images["base"][0, 0, 0])
        pooled = np.full((2, 3), red, np.float32) + observation.state[0]
        return PolicyOutput(
            actions=np.full((4, 7), random.normal(), np.float32),
            latents={
                POOLED: pooled,
                TOKENS: random.normal(size=(2, 4, 3)).astype(SPECS[TOKENS].numpy_dtype),
                "mask.instruction": np.arange(4) < 1 + int(red) % 3,
                "valid.text": np.array(int(red) % 4 != 0),
            },
        )

    def infer_batch(self, calls, *, capture=None):
        self.sizes.append(len(calls))
        return [
            c and self.infer(c.observation, capture=capture, noise_key=c.noise_key) for c in calls
        ]


class Quiet:
    def update(self, report):
        pass


@pytest.fixture
def demos(tmp_path):
    folder = tmp_path / "demos"
    folder.mkdir()
    write_libero(folder / "a.hdf5", lengths=(5, 3), words="open the drawer")
    write_libero(folder / "b.hdf5", lengths=(4,), words="close it")
    return survey([folder]).episodes


def plan(**more):
    return EncodePlan(**{"capture": CaptureSpec.preset("pooled"), "images": "png", **more})


def test_every_frame_is_shown_once_and_kept_with_what_was_recorded(demos, tmp_path):
    report = Encoder(demos, Echo(), plan()).run(str(tmp_path / "data"), Quiet())
    assert (report.episodes, report.samples, report.errors) == (3, 12, [])
    dataset = open_dataset(tmp_path / "data")
    rows = dataset.metadata.to_pylist()
    assert [(r["task_id"], r["episode"], r["timestep"]) for r in rows] == [
        *((0, 0, t) for t in range(5)), *((0, 1, t) for t in range(3)), *((1, 0, t) for t in range(4)),
    ]  # fmt: skip
    assert {(r["task_id"], r["instruction"]) for r in rows} == {
        (0, "open the drawer"), (1, "close it"),
    }  # fmt: skip
    assert {r["call"] for r in rows} == {None}
    assert {r["outcome"] for r in rows} == {"success"}
    state = dataset.read_robot("state")
    reds = np.array([40 + r["timestep"] for r in rows])
    np.testing.assert_array_equal(dataset.read(POOLED)[:, 0, 0], reds + state[:, 0])
    assert dataset.read_members("base.png", [2])[0][:4] == b"\x89PNG"
    assert dataset.read_robot("actions").shape == (12, 4, 7)
    np.testing.assert_array_equal(
        dataset.read_robot("executed")[:, 0], [*range(5), *range(10, 13), *range(4)]
    )


def test_batches_keep_their_size_and_change_nothing(demos, tmp_path):
    Encoder(demos, Echo(), plan()).run(str(tmp_path / "one"), Quiet())
    policy = Echo()
    Encoder(demos, policy, plan(batch=3)).run(str(tmp_path / "three"), Quiet())
    assert set(policy.sizes) == {3}
    one, three = (open_dataset(tmp_path / name) for name in ("one", "three"))
    for field in SPECS:
        np.testing.assert_array_equal(one.read(field), three.read(field))


def test_strides_and_plans_choose_frames_without_renumbering(demos, tmp_path):
    Encoder(demos, Echo(), plan(stride=2)).run(str(tmp_path / "stride"), Quiet())
    rows = open_dataset(tmp_path / "stride").metadata.to_pylist()
    assert [r["timestep"] for r in rows] == [0, 2, 4, 0, 2, 0, 2]
    frames = {demos[1].source: [2, 0], demos[2].source: [3]}
    Encoder(demos, Echo(), plan(frames=frames)).run(str(tmp_path / "plan"), Quiet())
    rows = open_dataset(tmp_path / "plan").metadata.to_pylist()
    assert [(r["task_id"], r["episode"], r["timestep"]) for r in rows] == [
        (0, 1, 0), (0, 1, 2), (1, 0, 3),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"`frames` of .* must lie in \[0, 5\), but got 5 to 5"):
        Encoder(demos, Echo(), plan(frames={demos[0].source: [5]}))
    with pytest.raises(ValueError, match="of which a frame is wanted, but of 3 there is none"):
        Encoder(demos, Echo(), plan(frames={}))


def test_a_second_run_skips_what_is_there_and_other_settings_are_refused(demos, tmp_path):
    out = str(tmp_path / "data")
    Encoder(demos, Echo(), plan()).run(out, Quiet())
    report = Encoder(demos, Echo(), plan()).run(out, Quiet())
    assert (report.skipped, report.episodes) == (3, 0)
    with pytest.raises(FingerprintError, match="stride"):
        Encoder(demos, Echo(), plan(stride=2)).run(out, Quiet())


def break_file(path):
    with h5py.File(path, "r+") as file:
        file["data/demo_0/actions"][1] = np.nan


def test_an_episode_that_cannot_be_read_is_noted_and_the_others_encoded(demos, tmp_path):
    break_file(demos[2].path)
    report = Encoder(demos, Echo(), plan()).run(str(tmp_path / "data"), Quiet())
    assert report.episodes == 2
    assert "b.hdf5" in report.errors[0]
    assert "NaN or infinite at step 1" in report.errors[0]
    assert [tuple(e) for e in open_dataset(tmp_path / "data").errors] == [("demos", 1, 0)]


def expected(demos, tmp_path, by):
    """The same sums out of the samples themselves."""
    Encoder(demos, Echo(), plan()).run(str(tmp_path / "samples"), Quiet())
    dataset = open_dataset(tmp_path / "samples")
    rows = dataset.metadata.to_pylist()
    keys = [(r["task_id"], r["episode"])[: 1 if by == "task" else 2] for r in rows]
    groups = list(dict.fromkeys(keys))
    values = {f: dataset.read(f).astype(np.float64) for f in SPECS}
    members = [[i for i, key in enumerate(keys) if key == group] for group in groups]
    return members, values


@pytest.mark.parametrize("by", ["task", "episode"])
def test_sums_are_those_of_the_valid_samples_and_tokens(demos, tmp_path, by):
    members, values = expected(demos, tmp_path, by)
    report = Reducer(demos, Echo(), plan(), by=by).run(str(tmp_path / "sums"), Quiet())
    assert report.samples == 12
    found = load_moments(tmp_path / "sums")
    assert [g["samples"] for g in found.groups] == [len(m) for m in members]
    assert found.groups[0]["task_name"] == "open the drawer"
    assert ("success" in found.groups[0]) is (by == "episode")
    for place, rows in enumerate(members):
        valid = values["valid.text"][rows] > 0
        pooled = values[POOLED][rows][valid]
        assert found.tensors[f"{POOLED}.count"][place] == valid.sum()
        np.testing.assert_allclose(found.tensors[f"{POOLED}.mean"][place], pooled.mean(0))
        np.testing.assert_allclose(
            found.tensors[f"{POOLED}.second_moment"][place], (pooled**2).mean(0)
        )
        mask = values["mask.instruction"][rows] > 0
        tokens = values[TOKENS][rows]
        np.testing.assert_array_equal(found.tensors[f"{TOKENS}.count"][place], mask.sum(0))
        np.testing.assert_allclose(
            found.tensors[f"{TOKENS}.sum"][place], (tokens * mask[:, None, :, None]).sum(0)
        )
        empty = mask.sum(0) == 0
        assert np.isnan(found.tensors[f"{TOKENS}.mean"][place][:, empty]).all()
        assert np.isfinite(found.tensors[f"{TOKENS}.mean"][place][:, ~empty]).all()


def test_small_numbers_on_a_large_one_are_not_lost():
    from jax_bridge.encoding.moments import GroupSums

    sums = GroupSums({POOLED: SPECS[POOLED]})
    for _ in range(2**12):
        sums.add({POOLED: np.full((2, 3), 2**13 + 2**-10, np.float32)})
    assert sums.sums[POOLED][0, 0] == 2**12 * (2**13 + 2**-10)  # float32 would stop at 2**25


def test_sums_that_were_interrupted_end_as_if_they_had_not_been(demos, tmp_path, monkeypatch):
    Reducer(demos, Echo(), plan(), by="task").run(str(tmp_path / "whole"), Quiet())
    monkeypatch.setattr(reducer_module, "SAVED_EVERY", 1)

    class Stops(Quiet):
        def update(self, report):
            if report.episodes == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Reducer(demos, Echo(), plan(), by="task").run(str(tmp_path / "cut"), Stops())
    assert load_moments(tmp_path / "cut").groups[0]["samples"] == 5
    report = Reducer(demos, Echo(), plan(), by="task").run(str(tmp_path / "cut"), Quiet())
    assert (report.skipped, report.episodes) == (1, 2)
    whole, cut = (load_moments(tmp_path / name) for name in ("whole", "cut"))
    assert whole.groups == cut.groups
    for name, value in whole.tensors.items():
        np.testing.assert_array_equal(value, cut.tensors[name])
    with pytest.raises(ValueError, match="has another by"):
        Reducer(demos, Echo(), plan(), by="episode").run(str(tmp_path / "cut"), Quiet())
    with pytest.raises(ValueError, match="has another fingerprint"):
        Reducer(demos, Echo(), plan(stride=2), by="task").run(str(tmp_path / "cut"), Quiet())


def test_an_episode_that_breaks_off_adds_nothing(demos, tmp_path):
    with h5py.File(demos[2].path, "r+") as file:
        del file["data/demo_0/obs/agentview_rgb"]
        file["data/demo_0/obs/agentview_rgb"] = np.zeros((2, 16, 16, 3), np.uint8)
    report = Reducer(demos, Echo(), plan(), by="task").run(str(tmp_path / "sums"), Quiet())
    assert len(report.errors) == 1
    assert [g["samples"] for g in load_moments(tmp_path / "sums").groups] == [8]


def test_bad_plans_and_files_are_named(demos, tmp_path):
    with pytest.raises(ValueError, match="`batch` must be positive, but got 0"):
        plan(batch=0)
    with pytest.raises(ValueError, match="`stride` must be left out where `frames`"):
        plan(stride=2, frames={})
    with pytest.raises(FileNotFoundError, match=r"must hold moments\.safetensors"):
        load_moments(tmp_path)
    (tmp_path / "moments.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="must hold a whole moments"):
        load_moments(tmp_path)
    with pytest.raises(ValueError, match="`out` must be a folder with --reduce"):
        Reducer(demos, Echo(), plan(), by="task").run("s3://bucket/sums", Quiet())
    assert picture(1)[0][0, 0, 0] == 41

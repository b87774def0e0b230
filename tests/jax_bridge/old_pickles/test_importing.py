"""A folder of old pickles becomes a data set: bitwise, file by file, and it says what it left."""

import numpy as np
import pytest

from jax_bridge.old_pickles import ImportPlan, import_pickles
from jax_bridge.old_pickles.regions import parse_regions, regions_of
from jax_bridge.old_pickles.samples import Cutting
from jax_bridge.shards import FingerprintError, open_dataset
from jax_bridge.shards.verify import verify_dataset
from tests.jax_bridge.old_pickles.conftest import HORIZON, LABELS, LAYERS, WIDTH, group, task

SITES = {
    "hidden_states": "hidden_states",
    "post_attn_embedding": "post_attn_embedding",
    "pre_attn_norm_scales": "pre_attn_norm_scale",
    "pre_mlp_norm_scales": "pre_mlp_norm_scale",
}


@pytest.fixture
def old(tmp_path, save, random):
    """Two files, two episodes each, two steps each; and what they hold."""
    folder = tmp_path / "old"
    folder.mkdir()
    tasks = {0: task(random), 12: task(random)}
    save(folder / "task_0_pick_the_cup.pkl", tasks[0])
    save(folder / "task_12_open-it.pkl", tasks[12])
    return folder, tasks


def test_every_array_is_there_bit_for_bit_under_our_names(old, tmp_path):
    folder, tasks = old
    out = tmp_path / "data"
    report = import_pickles(ImportPlan(folder=folder, suite="libero"), str(out))
    assert (report.files, report.episodes, report.samples) == (2, 4, 8)
    assert not report.refused
    assert not report.errors
    dataset = open_dataset(out)
    assert not verify_dataset(out).problems
    table = dataset.metadata.to_pylist()
    for row, about in enumerate(table):
        step = tasks[about["task_id"]]["episodes"][f"episode_{about['episode']}"]
        step = step["rollout_steps"][f"step_{about['timestep']}"]
        for old_name, site in SITES.items():
            due = step["vlm_layer_output"][old_name].reshape(LAYERS, 48, -1).squeeze()
            read = dataset.read(f"vlm.{site}.text.tokens", rows=[row])[0]
            assert read.tobytes() == due.tobytes()
            for label in LABELS:
                due = step[f"action_expert_hidden_state_t{label}"][old_name]
                due = due.reshape(LAYERS, 1 + HORIZON, -1)
                for region, tokens in (("state", slice(0, 1)), ("action", slice(1, None))):
                    name = f"action.{site}.{region}.tokens"
                    read = dataset.read(name, flow_times=[label], rows=[row])[0]
                    assert read.tobytes() == np.ascontiguousarray(due[:, tokens]).tobytes()


def test_outcome_names_and_labels_are_kept(old, tmp_path):
    folder, _ = old
    out = tmp_path / "data"
    import_pickles(ImportPlan(folder=folder, suite="libero", model="pi0 of May"), str(out))
    dataset = open_dataset(out)
    rows = dataset.metadata.to_pylist()
    assert {(r["task_id"], r["task_name"], r["instruction"]) for r in rows} == {
        (0, "pick_the_cup", "pick the cup"),
        (12, "open-it", "open-it"),
    }
    assert {(r["episode"], r["outcome"], r["episode_length"]) for r in rows} == {
        (0, "failure", 10),
        (1, "success", 10),
    }
    assert [r["call"] for r in rows[:2]] == [0, 1]
    assert dataset.fields["action.hidden_states.action.tokens"].flow_times == tuple(LABELS)
    assert dataset.info.capture["flow_times"].startswith("labels of the source")
    assert dataset.info.model["source"] == "pi0 of May"


def test_a_second_run_goes_on_where_the_first_stopped(old, tmp_path, save, random):
    folder, _ = old
    out = tmp_path / "data"
    plan = ImportPlan(folder=folder)
    import_pickles(plan, str(out))
    save(folder / "task_3_new.pkl", task(random, episodes=1))
    report = import_pickles(plan, str(out))
    assert (report.skipped, report.episodes) == (4, 1)
    assert len(open_dataset(out)) == 10
    with pytest.raises(FingerprintError, match=r"suite|environment"):
        import_pickles(ImportPlan(folder=folder, suite="other"), str(out))


def test_refused_files_and_unknown_names_are_said_and_the_rest_imported(old, tmp_path, save):
    folder, tasks = old
    save(folder / "task_5_evil.pkl", {"episodes": np.random.RandomState})
    save(folder / "task_6_else.pkl", {"something": 1})
    save(folder / "notes.pkl", [1])
    first = tasks[0]["episodes"]["episode_0"]["rollout_steps"]["step_0"]
    first["images"] = np.zeros(3)
    first["vlm_layer_output"]["kv_cache"] = np.zeros(3)
    save(folder / "task_0_pick_the_cup.pkl", tasks[0])
    report = import_pickles(ImportPlan(folder=folder), str(tmp_path / "data"))
    assert report.episodes == 4
    assert set(report.refused) == {"task_5_evil.pkl", "task_6_else.pkl"}
    assert "numpy.random" in report.refused["task_5_evil.pkl"]
    assert "`episodes` must be a dictionary" in report.refused["task_6_else.pkl"]
    assert dict(report.left_out) == {"images": 1, "vlm_layer_output/kv_cache": 1}
    assert report.others == ["notes.pkl"]


def test_an_episode_that_does_not_fit_is_noted_and_the_others_imported(old, tmp_path, save, random):
    folder, tasks = old
    steps = tasks[12]["episodes"]["episode_0"]["rollout_steps"]
    steps["step_5"]["vlm_layer_output"] = group(random, 200, WIDTH)
    save(folder / "task_12_open-it.pkl", tasks[12])
    out = tmp_path / "data"
    report = import_pickles(ImportPlan(folder=folder), str(out))
    assert report.episodes == 3
    (line,) = report.errors
    assert line.startswith("task_12_open-it.pkl, episode_0, step_5: vlm.")
    assert "(3, 200" in line
    assert [tuple(error) for error in open_dataset(out).errors] == [("imported", 12, 0)]


def test_experts_by_number_and_text_alone_are_known(tmp_path, save, random):
    folder = tmp_path / "old"
    folder.mkdir()
    whole = group(random, 256 + 48, WIDTH)
    text = {name: array[:, :, 256:] for name, array in whole.items()}
    step = {
        "expert_0": whole,
        "expert_1": {f"t{label}": group(random, HORIZON, 4) for label in (0.9, 0.5)},
        "text_only_hidden_states": text,
    }
    content = {"episodes": {"episode_0": {"rollout_steps": {"step_0": step}}}}
    save(folder / "task_1_a.pkl", content)
    plan = ImportPlan(folder=folder)
    import_pickles(plan, str(tmp_path / "data"))
    dataset = open_dataset(tmp_path / "data")
    read = dataset.read("vlm.hidden_states.text.tokens")[0]
    assert read.tobytes() == text["hidden_states"][:, 0].tobytes()
    assert dataset.fields["action.hidden_states.action.tokens"].flow_times == (0.9, 0.5)
    assert dataset.metadata.to_pylist()[0]["outcome"] == "unknown"

    step["text_only_hidden_states"] = {"hidden_states": text["hidden_states"] + 1}
    save(folder / "task_1_a.pkl", content)
    with pytest.raises(ValueError, match=r"twice with different values.*--leave_out"):
        import_pickles(plan, str(tmp_path / "other"))
    plan = ImportPlan(folder=folder, leave_out=("text_only_hidden_states",))
    assert import_pickles(plan, str(tmp_path / "other")).left_out["text_only_hidden_states"] == 1


def test_sequences_are_cut_by_openpis_lengths_or_by_what_is_given():
    images = tuple((f"image_{c}", 256) for c in ("base", "left_wrist", "right_wrist"))
    assert regions_of(816, "vlm", None) == (*images, ("text", 48))
    assert regions_of(968, "vlm", None) == (*images, ("text", 200))
    assert regions_of(51, "action", None) == (("state", 1), ("action", 50))
    assert regions_of(50, "action", None) == (("action", 50),)
    given = parse_regions("image_base:64,text:7", "vlm")
    assert regions_of(71, "vlm", given) == given
    with pytest.raises(ValueError, match="add up to the 70 tokens"):
        regions_of(70, "vlm", given)
    with pytest.raises(ValueError, match="16 tokens fit state:1,action:15 or action:16"):
        regions_of(16, "action", None)
    with pytest.raises(ValueError, match="300 tokens fit none of openpi's"):
        regions_of(300, "vlm", None)
    for wrong in ("image_base", "action:4", "text:0", "text:1,text:2"):
        with pytest.raises(ValueError, match=f"`vlm_regions` must .*{wrong}"):
            parse_regions(wrong, "vlm")


def test_given_regions_name_the_tokens(old, tmp_path):
    folder, _ = old
    cutting = Cutting(vlm=parse_regions("image_base:40,text:8", "vlm"))
    import_pickles(ImportPlan(folder=folder, cutting=cutting), str(tmp_path / "data"))
    fields = open_dataset(tmp_path / "data").fields
    assert fields["vlm.hidden_states.image_base.tokens"].shape == (LAYERS, 40, WIDTH)
    assert fields["vlm.pre_mlp_norm_scale.text.tokens"].shape == (LAYERS, 8)


def test_bad_folders_are_told_apart(tmp_path, save):
    with pytest.raises(FileNotFoundError, match="must be a folder"):
        ImportPlan(folder=tmp_path / "none")
    save(tmp_path / "x.pkl", 1)
    plan = ImportPlan(folder=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"1 other .pkl files and none of those"):
        import_pickles(plan, str(tmp_path / "data"))
    save(tmp_path / "task_1_a.pkl", 1)
    with pytest.raises(ValueError, match=r"task_1_a.pkl: the file must be a dictionary"):
        import_pickles(plan, str(tmp_path / "data"))
    save(tmp_path / "task_1_b.pkl", 1)
    with pytest.raises(ValueError, match=r"task 1 has task_1_a.pkl and task_1_b.pkl"):
        import_pickles(plan, str(tmp_path / "data"))
    with pytest.raises(ValueError, match="`suite` must be letters"):
        ImportPlan(folder=tmp_path, suite="a b")
    assert not (tmp_path / "data").exists()

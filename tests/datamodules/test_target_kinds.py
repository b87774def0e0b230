import pickle

import numpy as np
import pytest
import torch

from datamodules.latents import LatentDataModule
from datamodules.target_spec import TargetSpec
from datamodules.targets.registry import TARGETS
from lightning_modules.objectives.registry import OBJECTIVES
from tests.datamodules.truth_data import CONTAINERS, OBJECTS, write_truth


@pytest.fixture(scope="module")
def truth(tmp_path_factory):
    return write_truth(tmp_path_factory.mktemp("truth") / "data", suites=("one", "two"))


def module(path, name: str, **options) -> LatentDataModule:
    data = LatentDataModule(str(path), target=name, **options)
    data.setup()
    return data


def labels(data: LatentDataModule) -> list[str]:
    numbers = data.target.values(data.dataset, data.rows["all"])
    return [data.target_spec.classes[number] for number in numbers]


def column(data: LatentDataModule, name: str) -> np.ndarray:
    return np.array(data.dataset.index.take(data.rows["all"])[name].to_pylist())


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_target_gives_finite_batches_that_its_objective_takes(truth, name):
    data = module(truth, name, batch_size=7)
    reader = pickle.loads(pickle.dumps(data.reader))
    batch = reader.read(data.rows["train"][:7])
    spec, objective = data.target_spec, OBJECTIVES[data.target_spec.objective]()
    assert TargetSpec.from_json(spec.to_json()) == spec
    assert objective.classifies == bool(spec.classes)
    outputs = torch.zeros(7, 1, spec.size)
    assert torch.isfinite(objective.loss(outputs, batch.targets)).all()
    assert objective.trivial_outputs(torch.tensor(spec.trivial)).shape == (spec.size,)
    assert batch.targets.shape == ((7,) if spec.classes else (7, spec.size))


@pytest.mark.parametrize("libero", [False, True])
def test_object_and_container_are_those_of_the_goal(tmp_path, libero):
    path = write_truth(tmp_path / "data", libero=libero)
    for name, things in (("object", OBJECTS), ("container", CONTAINERS)):
        data = module(path, name)
        tasks = column(data, "task_id")
        expected = [things[t % 2] if name == "object" else things[t // 2] for t in tasks]
        assert labels(data) == expected


def test_outcomes_lights_and_swaps_are_read_from_the_index(truth):
    for name, expected in (
        ("success", {True: "yes", False: "no"}),
        ("success_at_end", {True: "yes", False: "no"}),
        ("suite", {"one": "one", "two": "two"}),
        ("light", {"dark": "dark", "bright": "bright"}),
    ):
        data = module(truth, name if name in TARGETS else f"column:{name}")
        assert labels(data) == [expected[value] for value in column(data, name).tolist()]
    data = module(truth, "swapped_instruction")
    swapped = column(data, "instruction") != column(data, "task_instruction")
    assert labels(data) == ["swapped" if other else "true" for other in swapped]


def test_a_number_is_standardised_and_rows_without_it_are_dropped_and_counted(truth):
    data = module(truth, "column:weight")
    assert data.without_value == 80
    assert data.describe()["dropped_without_value"] == 80
    values = data.target.values(data.dataset, data.rows["train"])
    assert values.mean() == pytest.approx(0, abs=1e-6)
    assert values.std() == pytest.approx(1, rel=1e-5)
    own = data.target.values(data.dataset, data.rows["all"])[:, 0]
    assert np.corrcoef(own, column(data, "task_id"))[0, 1] == pytest.approx(1)


def test_numbers_are_classes_where_that_is_asked_for(truth):
    data = module(truth, "class:weight")
    assert data.target_spec.classes == ("0.0", "0.5", "1.0", "1.5")
    assert data.target_spec.objective == "cross_entropy"


def test_questions_that_are_always_answered_alike_are_left_out(tmp_path):
    data = module(write_truth(tmp_path / "data"), "relations", task_range="0:2")
    spec = data.target_spec
    assert spec.dimensions == (
        "grasped(blue_ball)", "grasped(red_cube)", "in(blue_ball, white_bowl)",
        "in(red_cube, white_bowl)",
    )  # fmt: skip
    values = data.target.values(data.dataset, data.rows["all"])
    tasks, steps = column(data, "task_id"), column(data, "timestep")
    np.testing.assert_array_equal(values[:, 1], (tasks == 0) & (steps == 5))
    share = data.target.values(data.dataset, data.rows["train"]).mean(0)
    np.testing.assert_allclose(spec.trivial, share)


def test_goals_of_several_tasks_have_no_common_question(tmp_path):
    path = write_truth(tmp_path / "data", libero=True)
    with pytest.raises(ValueError, match=r"needs predicates that all selected samples share"):
        module(path, "relations")
    assert module(path, "relations", task_range="1:2").target_spec.size == 1


def test_objects_are_where_the_simulator_says(truth):
    data = module(truth, "object_positions")
    assert data.target_spec.dimensions[:2] == ("blue_ball.x", "blue_ball.y")
    assert "blue_ball.z" not in data.target_spec.dimensions
    values = data.target.values(data.dataset, data.rows["all"])
    assert np.corrcoef(values[:, 1], column(data, "timestep"))[0, 1] == pytest.approx(1)


def test_actions_and_clock_are_those_of_the_sample(truth):
    steps = column(data := module(truth, "time_to_go"), "timestep")
    values = data.target.values(data.dataset, data.rows["all"])[:, 0]
    assert np.corrcoef(values, steps)[0, 1] == pytest.approx(-1)
    data = module(truth, "next_action")
    values = data.target.values(data.dataset, data.rows["all"])[:, 0]
    sent = 10 * column(data, "task_id") + column(data, "timestep") // 5
    assert np.corrcoef(values, sent)[0, 1] == pytest.approx(1)
    data = module(truth, "gripper_opening")
    values = data.target.values(data.dataset, data.rows["all"])[:, 0]
    assert np.corrcoef(values, column(data, "timestep"))[0, 1] == pytest.approx(1)


def test_padded_chunks_are_dropped(truth):
    data = module(truth, "action_chunk")
    assert data.without_value == 80  # the last step of each episode
    assert set(column(data, "timestep")) == {0, 5}
    assert data.target_spec.size == 8


def test_a_suite_that_was_never_trained_is_no_class(truth):
    with pytest.raises(ValueError, match=r"got none of|needs at least|in every split"):
        module(truth, "suite", split_by="suite")


def test_the_trivial_predictor_scores_nothing_by_squared_error(truth):
    data = module(truth, "robot_state")
    objective = OBJECTIVES[data.target_spec.objective]()
    values = torch.from_numpy(data.target.values(data.dataset, data.rows["train"]))
    said = objective.trivial_outputs(torch.tensor(data.target_spec.trivial))
    scores = objective.scores(said.expand(len(values), 1, -1), values)
    assert float(scores.mean()) == pytest.approx(0, abs=1e-5)
    perfect = objective.scores(values[:, None], values)
    assert torch.equal(perfect, torch.ones_like(perfect))


def test_yes_or_no_objective_is_that_of_torch_and_counts_right_answers():
    outputs = torch.tensor([[[2.0, -1.0]], [[0.5, 3.0]]])
    targets = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    objective = OBJECTIVES["bce"]()
    expected = torch.nn.BCEWithLogitsLoss()(outputs[:, 0], targets)
    assert float(objective.loss(outputs, targets).mean()) == pytest.approx(float(expected))
    assert objective.scores(outputs, targets)[:, 0].tolist() == [0.5, 0.5]
    odds = objective.trivial_outputs(torch.tensor([0.2, 0.9]))
    assert torch.sigmoid(odds).tolist() == pytest.approx([0.2, 0.9])

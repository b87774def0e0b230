import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from datamodules.encoders.text_space import TextSpace
from datamodules.encoders.word_vectors import WordVectors
from datamodules.latents import LatentDataModule
from datamodules.targets.labels import Labels
from jax_bridge.shards import open_dataset
from tests.planted import write_planted

TEXTS = ["put the red cube in the bowl", "put the blue cube on the plate", "open the drawer"]


def target_of(planted, name: str, **options) -> tuple[LatentDataModule, np.ndarray]:
    data = LatentDataModule(str(planted), target=name, **options)
    data.setup()
    return data, data.target.values(data.dataset, data.rows["all"])


def words_of_texts(training: list[str]) -> WordVectors:
    encoder = WordVectors()
    encoder.fit(training)
    return encoder


def test_word_weights_are_those_of_scikit_learn():
    ours = words_of_texts(TEXTS)
    reference = TfidfVectorizer().fit(TEXTS)
    assert ours.vocabulary == reference.get_feature_names_out().tolist()
    np.testing.assert_allclose(ours.embed(TEXTS), reference.transform(TEXTS).toarray())


def test_instruction_vectors_are_equally_long_and_no_two_alike():
    raw = words_of_texts(TEXTS).embed(TEXTS)
    vectors = TextSpace(raw).project(raw)
    products = vectors @ vectors.T / vectors.shape[1]
    np.testing.assert_allclose(np.diag(products), 1, rtol=1e-6)
    assert products[~np.eye(3, dtype=bool)].max() < 0.1


def test_the_instruction_encoder_knows_the_training_words_alone(planted):
    data, values = target_of(planted, "instruction", split_by="task", fractions=(0.5, 0.25, 0.25))
    train = set(data.dataset.index["instruction"].take(data.rows["train"]).to_pylist())
    texts = data.dataset.index["instruction"].to_pylist()
    encoder = words_of_texts(sorted(train))
    expected = TextSpace(encoder.embed(sorted(train))).project(encoder.embed(texts))
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert train != set(texts)
    assert data.target_spec.objective == "cosine"
    assert not data.target_spec.collapsed


def test_robot_state_is_standardised_and_its_constant_dimension_left_out(planted):
    data, values = target_of(planted, "robot_state")
    assert data.target_spec.size == 4
    train = values[data.rows["train"]]
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0), 1, rtol=1e-5)
    state = open_dataset(planted).read_robot("state", rows=data.rows["all"])
    assert np.corrcoef(state[:, 0], values[:, 0])[0, 1] == pytest.approx(1, abs=1e-6)


def test_task_classes_are_named_and_their_training_shares_known(planted):
    data, values = target_of(planted, "task_id")
    assert data.target_spec.classes[0] == "000 put_the_red_cube_in_the_white_bowl"
    shares = np.bincount(values[data.rows["train"]]) / len(data.rows["train"])
    np.testing.assert_allclose(data.target_spec.trivial, shares)


def test_missing_instructions_are_refused_and_not_encoded(tmp_path):
    path = write_planted(tmp_path / "data", tasks=2, instructions=False)
    with pytest.raises(ValueError, match=r"2 instructions.*but got \[''\]"):
        target_of(path, "instruction")


def test_a_state_that_is_not_finite_is_named(tmp_path):
    path = write_planted(tmp_path / "data", tasks=2, broken="planted-t001-e0003-s0010")
    with pytest.raises(ValueError, match=r"state of sample planted-t001-e0003-s0010.*is NaN"):
        target_of(path, "robot_state")


def test_a_class_without_training_samples_is_reported(tmp_path):
    path = write_planted(tmp_path / "data", tasks=4, episodes=3, samples=1)
    data, values = target_of(path, "task_id", fractions=(0.3, 0.4, 0.3))
    missing = set(range(4)) - set(values[data.rows["train"]])
    assert 0 < len(missing) < 4
    names = [data.target_spec.classes[number] for number in sorted(missing)]
    assert data.describe()["untrained_classes"] == names


@pytest.mark.parametrize(
    ("all_trained", "classes", "message"),
    [
        (False, 2, r"`target` colour needs training samples of at least 2 classes, but got none of 1: 'c1'"),
        (True, 3, r"of at least 2 classes, and of each, but got none of 1: 'c2'"),
    ],
)  # fmt: skip
def test_an_empty_class_is_refused_where_nothing_could_be_learnt(
    planted, all_trained, classes, message
):
    dataset = open_dataset(planted)
    rows = np.arange(dataset.index.num_rows)
    target = Labels("colour", lambda _, some: [f"c{row % classes}" for row in some],
                    all_trained=all_trained)  # fmt: skip
    assert target.known(dataset, rows).all()
    trained = rows[rows % classes < classes - 1]
    with pytest.raises(ValueError, match=message):
        target.fit(dataset, rows=rows, training=trained)
    assert target.fit(dataset, rows=rows, training=rows).size == classes


def test_an_instruction_that_never_changes_is_refused(planted):
    with pytest.raises(ValueError, match=r"2 instructions.*put the red cube in the white bowl"):
        target_of(planted, "instruction", task_range="0:1")

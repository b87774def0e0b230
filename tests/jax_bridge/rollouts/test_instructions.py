"""`collect --instructions`: what the policy is told, and what is kept of it."""

import collections
import functools

import pytest

from jax_bridge.environments.environment import Task
from jax_bridge.pi0 import CaptureSpec
from jax_bridge.rollouts.collect import Collector, CollectPlan, dataset_info
from jax_bridge.rollouts.instruction_file import read_instructions
from jax_bridge.rollouts.instructions import Instructions, Rule
from jax_bridge.rollouts.lock_step import LockStepCollector
from jax_bridge.rollouts.protocol import RolloutProtocol
from jax_bridge.shards import open_dataset
from tests.jax_bridge.rollouts.worlds import Fragile, RowPolicy

TEXTS = ["put a in b", "put c in d", "open e", "put a in b", "close f", "open e"]
TASKS = [
    Task(suite="toy", task_id=i, name=f"task_{i}", instruction=text) for i, text in enumerate(TEXTS)
]


class Silent:
    def update(self, report):
        pass


def told(instructions, task, episodes, seed=0):
    return [instructions.instruction(seed=seed, task=task, episode=e) for e in episodes]


def from_file(folder, text, tasks=TASKS):
    (folder / "words.yaml").write_text(text)
    return read_instructions(str(folder / "words.yaml"), tasks)


@pytest.mark.parametrize("seed", range(3))
def test_swapped_tells_every_task_another_text_and_uses_each_once(seed):
    swapped = read_instructions("swapped", TASKS)
    for episode in range(20):
        given = [told(swapped, task, [episode], seed)[0] for task in TASKS]
        assert all(text != task.instruction for text, task in zip(given, TASKS, strict=True))
        assert collections.Counter(given) == collections.Counter(TEXTS)


def test_swaps_change_with_the_episode_and_the_seed_and_with_nothing_else():
    swapped = read_instructions("swapped", TASKS)
    first = told(swapped, TASKS[0], range(20))
    assert first == told(read_instructions("swapped", TASKS), TASKS[0], range(20))
    assert set(first) == {"put c in d", "open e", "close f"}
    assert first != told(swapped, TASKS[0], range(20), seed=1)


def test_scrambled_keeps_the_words_and_never_their_order():
    scrambled = read_instructions("scrambled", TASKS)
    given = told(scrambled, TASKS[0], range(30))
    assert {tuple(sorted(text.split())) for text in given} == {("a", "b", "in", "put")}
    assert "put a in b" not in given
    assert given == told(scrambled, TASKS[0], range(30))
    assert given != told(scrambled, TASKS[3], range(30))  # the same words, another task


def test_a_share_is_spread_evenly_over_the_episodes(tmp_path):
    some = from_file(tmp_path, "toy: {empty: 0.3}")
    which = [e for e, text in enumerate(told(some, TASKS[0], range(20))) if text == ""]
    assert which == [3, 6, 9, 13, 16, 19]


def test_a_file_gives_rules_by_number_and_by_name_and_paraphrases_in_turn(tmp_path):
    some = from_file(tmp_path, "toy:\n  0: do it\n  task_1: [first, second]\n  4: empty\n")
    assert told(some, TASKS[0], range(2)) == ["do it", "do it"]
    assert told(some, TASKS[1], range(3)) == ["first", "second", "first"]
    assert told(some, TASKS[4], [0]) == [""]
    assert told(some, TASKS[2], [0]) == ["open e"]  # no rule: its own
    assert some.to_json() == {
        "toy": {"0": {"texts": ["do it"]}, "1": {"texts": ["first", "second"]},
                "4": {"word": "empty", "share": 1.0}},
    }  # fmt: skip


def test_equal_meaning_has_an_equal_form(tmp_path):
    word = read_instructions("swapped", TASKS).to_json()
    assert from_file(tmp_path, "toy: swapped\nother: empty").to_json() == word
    assert from_file(tmp_path, "toy: {swapped: 1}").to_json() == word


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("other: swapped", "must name the suite toy, but it names other"),
        ("toy: {9: empty}", r"by its number \(0 to 5\) or name, but got 9"),
        ("toy: {0: x, task_0: y}", "each task of toy once.*but got 'task_0'"),
        ("toy: {0: [x, 3]}", r"a list of texts.*but got \['x', 3\]"),
        ("toy: {swapped: 1.5}", "share above 0 and at most 1, but got 1.5"),
        ("toy: {swapped: yes}", "but got {'swapped': True}"),
        ("[toy]", r"must map suites to rules, but .* holds \['toy'\]"),
        ("toy: [", "must be a YAML file, but .*words.yaml: while parsing"),
    ],
)
def test_a_file_that_says_something_else_is_refused(tmp_path, text, match):
    with pytest.raises(ValueError, match=match):
        from_file(tmp_path, text)


def test_what_cannot_be_changed_is_refused():
    alike = [*TASKS[:1], *TASKS[3:4], TASKS[4]]
    with pytest.raises(ValueError, match="2 of its 3 tasks say the same"):
        read_instructions("swapped", alike)
    one = Task(suite="toy", task_id=0, name="x", instruction="go")
    with pytest.raises(ValueError, match="two different words to scramble, but task 0 says 'go'"):
        Instructions(tasks=[one], rules={0: Rule(word="scrambled")})
    with pytest.raises(
        FileNotFoundError, match=r"swapped, empty, scrambled or a YAML file.*nowhere"
    ):
        read_instructions("nowhere", TASKS)


class ListeningPolicy(RowPolicy):
    """Notes what it is told, by task, episode and call."""

    def infer(self, observation, *, capture=None, noise_key=()):
        heard = getattr(self, "heard", {})
        heard[tuple(noise_key)[2:4]] = observation.instruction
        self.heard = heard
        return super().infer(observation, capture=capture, noise_key=noise_key)


def plan(instructions, episodes=range(3)):
    return CollectPlan(
        tasks=range(2), episodes=episodes, capture=CaptureSpec.preset("pooled"), images="none",
        protocol=RolloutProtocol(max_steps=4, replan=2, batch=2), instructions=instructions,
    )  # fmt: skip


def metadata(folder):
    rows = open_dataset(folder).metadata.drop(["shard"])
    return rows, {
        (r["task_id"], r["episode"]): (r["instruction"], r["task_instruction"])
        for r in rows.to_pylist()
    }


def test_the_policy_reads_what_is_kept_as_instruction_and_the_task_stays(tmp_path):
    world, policy = Fragile(), ListeningPolicy()
    swapped = read_instructions("swapped", world.tasks)
    Collector(world, policy, plan(swapped)).run(str(tmp_path), Silent())
    _, kept = metadata(tmp_path)
    assert {key: given for key, (given, _) in kept.items()} == policy.heard
    for (task, episode), (given, true) in kept.items():
        assert true == world.tasks[task].instruction != given
        assert [given] == told(swapped, world.tasks[task], [episode])


def test_workers_and_resuming_tell_the_same(tmp_path):
    world = Fragile()
    swapped = read_instructions("swapped", world.tasks)
    Collector(world, ListeningPolicy(), plan(swapped)).run(str(tmp_path / "one"), Silent())
    policy = ListeningPolicy()
    for episodes in (range(1), range(3)):
        LockStepCollector(
            world, functools.partial(Fragile), policy, plan(swapped, episodes), workers=2
        ).run(str(tmp_path / "two"), Silent())
    (one, kept), (two, _) = metadata(tmp_path / "one"), metadata(tmp_path / "two")
    assert one.equals(two)
    assert {key: given for key, (given, _) in kept.items()} == policy.heard


def test_only_given_instructions_change_the_fingerprint():
    world, policy = Fragile(), RowPolicy()
    infos = [
        dataset_info(world, policy, plan(words and read_instructions(words, world.tasks)))
        for words in (None, "swapped", "empty")
    ]
    assert infos[0].instruction_overrides is None
    assert len({info.fingerprint for info in infos}) == 3

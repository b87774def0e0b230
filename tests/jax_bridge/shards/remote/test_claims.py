"""Of two machines that finish one episode, one makes it visible, however their steps interleave."""

import itertools
import json
import threading

import pytest

from jax_bridge.shards.remote import claims
from jax_bridge.shards.remote.claims import CLAIM, Claims
from jax_bridge.shards.remote.store import ObjectInfo, RemoteStore
from jax_bridge.shards.sample_key import EpisodeId

ONE, TWO = EpisodeId("toy", 0, 1), EpisodeId("toy", 0, 2)


@pytest.fixture
def address(tmp_path):
    return f"file://{tmp_path}/data"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(claims.time, "sleep", lambda _: None)


def steps_of(store, machine, episode, shown):
    """One attempt of a machine to make an episode visible."""

    def look(listed):
        return not any(name.endswith(".json") for name in listed)

    def show():
        store.write(f"shards/{machine}.json", b"{}")
        shown.append(machine)

    return Claims(store, machine).publish([episode], look=look, show=show)


class Turns:
    """Lets two machines make their requests in a given order."""

    def __init__(self, order):
        self._order, self._changed = list(order), threading.Condition()
        self._ended = set()

    def take(self, machine):
        with self._changed:
            self._changed.wait_for(lambda: self._is_next(machine), timeout=10)
            if self._order:
                self._order.pop(0)
            self._changed.notify_all()

    def end(self, machine):
        with self._changed:
            self._ended.add(machine)
            self._changed.notify_all()

    def _is_next(self, machine):
        while self._order and self._order[0] in self._ended:
            self._order.pop(0)
        return not self._order or self._order[0] == machine


class Shared(RemoteStore):
    """Objects of two machines in memory; each request waits for its turn."""

    def __init__(self, objects, turn):
        self._objects, self._turn = objects, turn

    def listing(self, folder):
        self._turn()
        now = dict(self._objects).items()  # at once: the other machine may run beside this one
        return {n.partition("/")[2]: ObjectInfo(size=1, stamp=str(text)) for n, text in now}

    def read(self, name):
        self._turn()
        content = self._objects.get(name)
        if content is None:
            raise FileNotFoundError(name)
        return content

    def write(self, name, content):
        self._turn()
        self._objects[name] = content

    def remove(self, name):
        self._turn()
        self._objects.pop(name, None)


def shown_in_turn(order):
    """Who made the episode visible, when both want to and make their requests in this order."""
    objects, shown, turns = {}, [], Turns(order)

    def work(machine):
        store = Shared(objects, lambda: turns.take(machine))
        steps_of(store, machine, ONE, shown)
        turns.end(machine)

    threads = [threading.Thread(target=work, args=(machine,)) for machine in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(CLAIM in name for name in objects)
    return shown


def test_one_of_two_machines_makes_an_episode_visible_in_any_order_of_their_requests():
    # Undisturbed, a machine makes four: claim, list, manifest, end of the claim.
    orders = [
        ["one" if place in ones else "two" for place in range(10)]
        for ones in itertools.combinations(range(10), 5)
    ]
    winners = [shown_in_turn(order) for order in orders]
    assert {len(shown) for shown in winners} == {1}
    assert {shown[0] for shown in winners} == {"one", "two"}


def test_a_claim_that_ends_while_it_is_read_is_not_taken_for_none(address):
    """It was listed before its manifest was there, and removed after."""
    shown = []
    other = RemoteStore(address)
    other.write(f"shards/{CLAIM}other", json.dumps({"episodes": [ONE]}).encode())

    class Late(RemoteStore):
        def read(self, name):
            other.write("shards/other.json", b"{}")
            other.remove(f"shards/{CLAIM}other")
            return super().read(name)

    assert not steps_of(Late(address), "mine", ONE, shown)
    assert shown == []


def test_claims_of_other_episodes_are_in_nobodys_way(address):
    shown = []
    RemoteStore(address).write(f"shards/{CLAIM}x", json.dumps({"episodes": [TWO]}).encode())
    RemoteStore(address).write(f"shards/{CLAIM}y", b"no json")
    assert steps_of(RemoteStore(address), "mine", ONE, shown)
    assert shown == ["mine"]
    assert RemoteStore(address).names("shards") == [f"{CLAIM}x", f"{CLAIM}y", "mine.json"]


def test_the_claim_of_a_stopped_machine_is_removed_after_a_while(address, monkeypatch):
    clock = itertools.count(step=5.0)
    monkeypatch.setattr(claims.time, "monotonic", lambda: next(clock))
    RemoteStore(address).write(f"shards/{CLAIM}dead", json.dumps({"episodes": [ONE]}).encode())
    assert steps_of(RemoteStore(address), "mine", ONE, [])
    assert RemoteStore(address).names("shards") == ["mine.json"]


def test_a_claim_that_is_made_anew_is_of_a_living_machine(address, monkeypatch):
    clock = itertools.count(step=5.0)
    monkeypatch.setattr(claims.time, "monotonic", lambda: next(clock))
    other, looks = RemoteStore(address), itertools.count()

    class Alive(RemoteStore):
        def listing(self, folder):
            number = next(looks)
            if number > 100:
                other.remove(f"shards/{CLAIM}other")
            else:
                text = {"episodes": [ONE], "attempt": "x" * (1 + number % 7)}
                other.write(f"shards/{CLAIM}other", json.dumps(text).encode())
            return super().listing(folder)

    assert steps_of(Alive(address), "mine", ONE, [])
    assert next(looks) > 100


def test_what_a_stopped_machine_left_is_withdrawn_at_its_next_start(address):
    store = RemoteStore(address)
    store.write(f"shards/{CLAIM}mine", b"{}")
    store.write(f"shards/{CLAIM}other", b"{}")
    Claims(store, "mine").withdraw()
    assert store.names("shards") == [f"{CLAIM}other"]

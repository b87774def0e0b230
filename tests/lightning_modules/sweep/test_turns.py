"""Threads that take turns."""

import threading

from lightning_modules.sweep.turns import Turns


def played(*plays: str) -> str:
    """What threads write down one after the other; `-` passes on, `|` meets, a letter is written."""
    turns, written, working = Turns(len(plays)), [], threading.Lock()

    def play(member: int) -> None:
        turns.begin(member)
        for step in plays[member]:
            if step == "-":
                turns.pass_on(member)
            elif step == "|":
                turns.meet(member)
            else:
                assert working.acquire(blocking=False)
                written.append(step)
                working.release()
        turns.end(member)

    threads = [threading.Thread(target=play, args=(m,), daemon=True) for m in range(len(plays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert not any(thread.is_alive() for thread in threads), "they wait for ever"
    return "".join(written)


def test_everyone_works_until_the_turn_is_passed_on():
    assert played("ab-c", "de-f", "g-h-i") == "abdegcfhi"


def test_who_ends_leaves_the_others_alone():
    assert played("a", "b-c-d", "") == "abcd"
    assert played("a|b", "", "c") == "acb"


def test_who_comes_early_waits_for_those_who_come_late_even_if_some_never_come():
    assert played("a|x-y|", "b-c-d|z|", "e-f") == "abecfdxzy"
    assert played("a|b|c", "d|e|f") == "adbecf"

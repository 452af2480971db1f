"""Jobs: each once, urgent ones first, kept on disk, given up without harm."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cards import request

from dialogue import Turn
from ml_backend.desk import Desk
from ml_backend.requests import Draft, DraftRequest
from ml_backend.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(tmp_path / "store.sqlite")
    yield made
    made.close()


def drafted(wanted: DraftRequest) -> Draft:
    return Draft(wanted.id, (wanted.turns[0], Turn("Aku", "うん。")), (1,), -0.5, 3)


def soon() -> float:
    return time.monotonic() + 20


class Asking(threading.Thread):
    """Somebody who asks and waits."""

    def __init__(self, desk: Desk, version: str, *requests: DraftRequest, urgent: bool = False) -> None:
        super().__init__()
        self.arguments = (desk, version, requests, urgent)
        self.answer: dict[str, Draft] = {}
        self.start()

    def run(self) -> None:
        desk, version, requests, urgent = self.arguments
        self.answer = desk.ask(version, list(requests), urgent=urgent, until=soon())


def wait_for_queue(desk: Desk, count: int) -> None:
    while desk.numbers()["queued"] < count:
        time.sleep(0.005)


def test_three_who_ask_the_same_make_one_job(store: Store) -> None:
    desk, wanted = Desk(store, "f"), request(1, "ねえ")
    people = [Asking(desk, "v", wanted) for _ in range(3)]
    while desk.numbers()["shared_total"] < 2:
        time.sleep(0.005)
    source = desk.source(desk.next_version(20) or "")
    assert source.take(5) == [wanted]
    assert source.take(5) == []
    desk.finish("v", wanted, drafted(wanted))
    for person in people:
        person.join(20)
        assert person.answer == {wanted.digest(): drafted(wanted)}


def test_drafts_survive_on_disk_but_not_other_settings(store: Store) -> None:
    desk, wanted = Desk(store, "f"), request(1, "ねえ")
    asking = Asking(desk, "v", wanted)
    wait_for_queue(desk, 1)
    desk.take("v")
    desk.finish("v", wanted, drafted(wanted))
    asking.join(20)
    again = Desk(Store(store.path), "f")
    assert again.ask("v", [wanted], urgent=False, until=0) == {wanted.digest(): drafted(wanted)}
    assert again.ask("w", [wanted], urgent=False, until=0) == {}
    assert Desk(store, "g").ask("v", [wanted], urgent=False, until=0) == {}


def test_what_is_not_ready_in_time_goes_on_and_is_there_later(store: Store) -> None:
    desk, wanted = Desk(store, "f"), request(1, "ねえ")
    assert desk.ask("v", [wanted], urgent=False, until=time.monotonic()) == {}
    assert desk.take("v") == wanted
    desk.finish("v", wanted, drafted(wanted))
    assert desk.ask("v", [wanted], urgent=False, until=time.monotonic()) == {wanted.digest(): drafted(wanted)}


def test_urgent_requests_come_first_and_longer_ones_before_shorter(store: Store) -> None:
    desk = Desk(store, "f")
    short, long, live = request(1, "ね"), request(2, "ねえねえねえ"), request(3, "さあ")
    for wanted, urgent in ((short, False), (long, False), (live, True)):
        desk.ask("v", [wanted], urgent=urgent, until=0)
    assert desk.urgent("v")
    assert [desk.take("v") for _ in range(4)] == [live, short, long, None]
    desk.fail("v")
    desk.ask("v", [short, long], urgent=False, until=0)
    assert [desk.take("v") for _ in range(2)] == [long, short]


def test_an_urgent_question_makes_a_waiting_job_urgent(store: Store) -> None:
    desk = Desk(store, "f")
    first, second = request(1, "ねえねえ"), request(2, "ねえ")
    desk.ask("v", [first], urgent=False, until=0)
    desk.ask("v", [second], urgent=False, until=0)
    desk.ask("v", [second], urgent=True, until=0)
    assert desk.take("v") == second


def test_urgent_work_of_another_version_ends_a_run(store: Store) -> None:
    desk = Desk(store, "f")
    desk.ask("old", [request(1, "ねえ"), request(2, "ねえ")], urgent=False, until=0)
    assert desk.take("old") is not None
    desk.ask("new", [request(3, "ねえ")], urgent=False, until=0)
    assert desk.take("old") is not None, "work that does not press waits for its turn"
    desk.ask("old", [request(4, "ねえ")], urgent=False, until=0)
    desk.ask("new", [request(5, "ねえ")], urgent=True, until=0)
    assert desk.take("old") is None
    assert desk.next_version(20) == "new"


def test_a_swap_drops_what_nobody_waits_for(store: Store) -> None:
    desk = Desk(store, "f")
    desk.ask("old", [request(1, "ねえ")], urgent=False, until=0)
    waiting = Asking(desk, "old", request(2, "ねえ"))
    wait_for_queue(desk, 2)
    desk.drop_others("new")
    assert desk.take("old") == request(2, "ねえ")
    assert desk.take("old") is None
    desk.finish("old", request(2, "ねえ"), drafted(request(2, "ねえ")))
    waiting.join(20)
    assert len(waiting.answer) == 1


def test_failed_jobs_wake_those_who_wait_and_can_be_asked_again(store: Store) -> None:
    desk = Desk(store, "f")
    waiting = Asking(desk, "v", request(1, "ねえ"))
    wait_for_queue(desk, 1)
    desk.take("v")
    desk.ask("v", [request(2, "ねえ")], urgent=False, until=0)
    assert desk.fail("v", running_only=True) == 1
    waiting.join(20)
    assert waiting.answer == {}
    assert desk.take("v") == request(2, "ねえ")
    desk.ask("v", [request(1, "ねえ")], urgent=False, until=0)
    assert desk.take("v") == request(1, "ねえ")


def test_paused_desk_hands_out_nothing(store: Store) -> None:
    desk = Desk(store, "f")
    desk.ask("v", [request(1, "ねえ")], urgent=True, until=0)
    desk.pause(True)
    assert desk.take("v") is None
    assert desk.next_version(0.01) is None
    desk.pause(False)
    assert desk.next_version(20) == "v"


def test_replies_and_events_are_noted_once(store: Store) -> None:
    assert store.replies("p") == []
    assert store.keep_reply("p", 0, "うん。")
    assert not store.keep_reply("p", 0, "ううん。")
    assert store.keep_reply("p", 1, "べつに。")
    assert store.replies("p") == ["うん。", "べつに。"]
    assert store.new_event("e")
    assert not store.new_event("e")
    assert not Store(store.path).new_event("e")


def test_damaged_store_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"no database" * 1000)
    store = Store(path)
    assert store.new_event("e")
    assert path.with_name("store.sqlite.damaged").exists()


def test_requests_and_drafts_survive_json() -> None:
    wanted = request(7, "ねえ", attempt=2, limit=1)
    assert DraftRequest.from_dict(wanted.to_dict()) == wanted
    assert Draft.from_dict(drafted(wanted).to_dict()) == drafted(wanted)
    assert wanted.digest() != request(7, "ねえ", attempt=3, limit=1).digest()

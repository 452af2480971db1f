"""How a team's studio bears a team: simulated annotators write dialogues turn by turn, with live drafts.

Starts the services of docker-compose.yml as processes (`benchmarks/team.py`): Label Studio on PostgreSQL under its
production server, the ML backend with a model of the demo's size.  Every annotator has an account and a session of
their own, and sends what Label Studio's page sends: next task, a draft after every turn, a request for Aku's reply
after every turn of User's, submit.  Everything acknowledged is looked for in the database's answers afterwards.

    python -m benchmarks.load --people 20 --cards 3
    python -m benchmarks.load --people 8 --calls 100   # with all that a browser asks when it draws a card
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from aku import provision
from aku.deployment import add_person, sign_in
from benchmarks.drafting import random_checkpoint
from benchmarks.team import Team, running
from dialogue import Attribute, BackendError, Registry, label_studio
from dialogue.label_studio import Card, blank_turns

SETTINGS = "[backend]\ntemperature = 0\nretries = 0\nmax_new_tokens = 12\n"
CONNECTIONS = 6
"""Requests that a browser makes to one server at a time."""
SENTENCES = "ただいま。 今日は寒いね。 お腹すいた。 何してた？ 散歩に行こうよ。 それ、いいね。 明日は休みだよ。".split()


def card(turns: int) -> dict[str, Any]:
    """A waiting card as Label Studio imports it."""
    return {"data": label_studio.to_task(Card("負荷試験", "帰り道。", Attribute(3, 3), (), blank_turns(turns)))}


def result(texts: Sequence[str], turns: int) -> list[dict[str, Any]]:
    """What stands on the screen: scene, boxes, choices."""
    return label_studio.to_result(
        blank_turns(turns, texts), context="帰り道。", attribute=Attribute(3, 3), genre=(), fill=True
    )


@dataclasses.dataclass
class Written:
    """What Label Studio acknowledged of one dialogue: the draft's last text, and the annotation when it was submitted.

    `unsure` are the drafts that were sent and got no answer: each may be there or not.
    """

    task: int
    draft: int | None = None
    texts: tuple[str, ...] = ()
    annotation: int | None = None
    unsure: list[tuple[str, ...]] = dataclasses.field(default_factory=list)


class Annotator:
    """One person in a browser, as far as the server can see."""

    def __init__(
        self, url: str, project: int, backend: int, email: str, password: str, turns: int = 6, calls: int = 0
    ) -> None:
        """Sign in through the login page."""
        self.calls = calls
        self.http = httpx.Client(base_url=url, timeout=120, trust_env=False)
        self.project, self.backend, self.email, self.turns = project, backend, email, turns
        self.seconds: dict[str, list[float]] = {}
        answer = sign_in(self.http, email, password)
        assert answer.status_code == 302, f"{email} is not let in: {answer.status_code}"
        self.id = int(self._send("who", "GET", "/api/current-user/whoami")["id"])

    def next_task(self) -> int | None:
        """Press *Label All Tasks*: a card that nobody else was given; None when there is none."""
        path = f"/api/dm/actions?id=next_task&project={self.project}"
        # With filters or an order in the body (*Label Tasks As Displayed*) everybody is given the same card.
        answer = self._timed("next", lambda: self.http.post(path, json={}))
        if answer.status_code == 404:
            return None
        answer.raise_for_status()
        return int(answer.json()["id"])

    def save(self, written: Written, texts: Sequence[str]) -> None:
        """Save the draft, as the page does by itself when a box loses focus."""
        body = {"lead_time": 1.0, "result": result(texts, self.turns), "project": self.project}
        written.unsure.append(tuple(texts))
        if written.draft is None:
            path = f"/api/tasks/{written.task}/drafts?project={self.project}"
            written.draft = int(self._send("save", "POST", path, body)["id"])
        else:
            self._send("save", "PATCH", f"/api/drafts/{written.draft}/?project={self.project}", body)
        written.texts, written.unsure = tuple(texts), []

    def live_draft(self, written: Written, texts: Sequence[str], name: str = "live draft") -> str:
        """Ask for Aku's next reply; empty if the backend has nothing to say.  `name` is the kind of request."""
        shown = [item for item in result(texts, self.turns) if "text" in item["value"]]
        body = {"task": written.task, "context": {"result": shown}}
        data = self._send(name, "POST", f"/api/ml/{self.backend}/interactive-annotating", body).get("data") or {}
        items = data.get("result") or []
        return str(items[0]["value"]["text"][0]) if items else ""

    def submit(self, written: Written) -> None:
        """Press Submit."""
        body = {
            "lead_time": 12.5,
            "result": result(written.texts, self.turns),
            "draft_id": written.draft or 0,
            "project": self.project,
        }
        path = f"/api/tasks/{written.task}/annotations/?project={self.project}"
        written.annotation = int(self._send("submit", "POST", path, body)["id"])

    def draw(self, written: Written) -> None:
        """Send what the page sends when it draws a card with Auto-Annotation on: `calls` times the same question."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(lambda _: self.live_draft(written, [], "drawing"), range(self.calls)))

    def write(self, choice: random.Random, pause: float = 0.0) -> Written | None:
        """Write one dialogue from the next card to Submit; None when no card waits."""
        task = self.next_task()
        if task is None:
            return None
        written = Written(task)
        self.draw(written)
        texts: list[str] = []
        while len(texts) < self.turns:
            time.sleep(choice.uniform(0, 2 * pause))
            texts.append(f"{choice.choice(SENTENCES)}{self.id}・{task}・{len(texts)}")
            self.save(written, texts)
            if len(texts) < self.turns:
                texts.append(self.live_draft(written, texts) or f"うん。{len(texts)}")
                self.save(written, texts)
        self.submit(written)
        return written

    def _send(self, name: str, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        answer = self._timed(name, lambda: self.http.request(method, path, json=body))
        answer.raise_for_status()
        return answer.json()

    def _timed(self, name: str, call: Callable[[], httpx.Response]) -> httpx.Response:
        started = time.perf_counter()
        answer = call()
        self.seconds.setdefault(name, []).append(time.perf_counter() - started)
        return answer


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run came to: latencies in seconds by kind of request, errors, and what was lost or doubled."""

    written: int
    errors: list[str]
    lost: list[str]
    seconds: dict[str, list[float]]
    wall: float

    def summary(self) -> dict[str, Any]:
        """Figures for printing; times in milliseconds."""
        kinds = {name: _quantiles(values) for name, values in sorted(self.seconds.items()) if name != "who"}
        return {
            "dialogues": self.written,
            "errors": len(self.errors),
            "lost_or_doubled": len(self.lost),
            "saves_under_1_s": sum(s < 1 for s in self.seconds["save"]) / len(self.seconds["save"]),
            "wall_s": round(self.wall, 1),
            **kinds,
        }


def accounts(team: Team, count: int) -> Iterator[tuple[str, str]]:
    """Make accounts; yields address and password of each."""
    there = len(team.run("aku", "people", "list").stdout.splitlines())
    for number in range(there, there + count):
        email = f"annotator{number}@example.org"
        yield email, add_person(team.workspace, email)


def add_cards(team: Team, count: int, turns: int) -> list[int]:
    """Import waiting cards; returns the tasks' numbers."""
    with provision.api(team.workspace, team.url) as http:
        path = f"/api/projects/{team.facts['project']}/import?return_task_ids=true"
        answer = http.post(path, json=[card(turns) for _ in range(count)])
        answer.raise_for_status()
        return [int(number) for number in answer.json()["task_ids"]]


def annotators(team: Team, count: int, turns: int, calls: int = 0) -> list[Annotator]:
    """Make people with accounts, signed in."""
    made = list(accounts(team, count))
    where = (team.url, team.facts["project"], team.facts["backend"])
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda account: Annotator(*where, *account, turns=turns, calls=calls), made))


def check(team: Team, person: int, written: Written) -> list[str]:
    """Compare one submitted dialogue with what Label Studio says it holds; returns what is wrong."""
    with provision.api(team.workspace, team.url) as http:
        rows = http.get(f"/api/tasks/{written.task}/annotations/").raise_for_status().json()
    mine = [row for row in rows if row["completed_by"] == person]
    if [row["id"] for row in mine] != [written.annotation]:
        return [f"task {written.task}: annotations {[row['id'] for row in mine]}, acknowledged {written.annotation}"]
    found = label_studio.read_result(mine[0]["result"]).texts
    texts = tuple(found.get(i, "") for i in range(len(written.texts)))
    return [] if texts == written.texts else [f"task {written.task}: holds {texts}, acknowledged {written.texts}"]


def load(
    team: Team, people: int, cards: int, turns: int = 6, pause: float = 0.0, seed: int = 0, calls: int = 0
) -> Outcome:
    """Let people write at once until every card is done, then look for everything they were told is saved."""
    group = annotators(team, people, turns, calls)
    add_cards(team, people * cards, turns)
    errors: list[str] = []
    done: list[tuple[int, Written]] = []
    together = threading.Barrier(people)

    def work(person: Annotator) -> None:
        choice = random.Random(seed + person.id)
        together.wait()
        if calls:
            time.sleep(choice.uniform(0, 2 * pause))  # nobody opens a card in the same instant as everybody else
        for _ in range(cards):
            try:
                written = person.write(choice, pause)
            except (httpx.HTTPError, KeyError, ValueError) as error:
                errors.append(f"{person.email}: {error!r}")
            else:
                if written is not None:
                    done.append((person.id, written))

    started = time.perf_counter()
    with ThreadPoolExecutor(people) as pool:
        list(pool.map(work, group))
    wall = time.perf_counter() - started
    lost = [fault for person, written in done for fault in check(team, person, written)]
    tasks = Counter(written.task for _, written in done)
    lost += [f"task {task}: was given to {count} people" for task, count in tasks.items() if count > 1]
    seconds: dict[str, list[float]] = {}
    for person in group:
        for name, values in person.seconds.items():
            seconds.setdefault(name, []).extend(values)
    return Outcome(len(done), errors, lost, seconds, wall)


def open_gate(team: Team, size: str = "2M") -> str:
    """Let a model of the demo's size, with random weights, draft; returns its id when the backend serves it."""
    registry = Registry(team.workspace.checkpoints)
    checkpoint = random_checkpoint(size, registry)
    registry.use(checkpoint.id, {"open": True, "reason": "benchmark"})
    who = (team.secrets["BACKEND_USER"], team.secrets["BACKEND_PASSWORD"])
    end = time.monotonic() + 120
    while time.monotonic() < end:
        answer = httpx.post(f"{team.backend_url}/setup", json={"project": "1.1"}, auth=who, timeout=60, trust_env=False)
        if answer.json().get("model_version") == checkpoint.id:
            return checkpoint.id
        time.sleep(0.2)
    raise BackendError(f"the backend does not serve {checkpoint.id} after two minutes; see its log.")


def _quantiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    at = {"median_ms": 0.5, "p95_ms": 0.95, "max_ms": 1.0}
    return {k: round(1000 * ordered[min(int(q * len(ordered)), len(ordered) - 1)], 1) for k, q in at.items()} | {
        "n": len(ordered)
    }


def main() -> None:
    """Start a team's studio, let people write, print the figures."""
    parser = argparse.ArgumentParser(description="Simulated annotators on a team's studio.")
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--cards", type=int, default=3, help="dialogues that each writes")
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--pause", type=float, default=10.0, help="mean seconds that a person takes for a turn")
    parser.add_argument("--calls", type=int, default=0, help="calls when a card is drawn; a browser makes about 100")
    parser.add_argument("--processes", default="4", help="processes that serve Label Studio")
    parser.add_argument("--server", choices=["uwsgi", "runserver"], default="uwsgi")
    options = parser.parse_args()
    with running({"AKU_PROCESSES": options.processes}, SETTINGS) as team:
        if options.server == "runserver":
            team.use_runserver()
        open_gate(team)
        outcome = load(team, options.people, options.cards, options.turns, options.pause, calls=options.calls)
        print(json.dumps({"server": options.server, "processes": options.processes, **outcome.summary()}, indent=1))
        for line in [*outcome.errors, *outcome.lost][:20]:
            print(line)


if __name__ == "__main__":
    main()

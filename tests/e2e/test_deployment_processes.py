"""The services of docker-compose.yml as processes: from nothing to a drafted card, people, and a small load."""

from __future__ import annotations

import re
import subprocess
import time
from typing import Any

import httpx
import pytest

from aku import provision
from aku.deployment import add_person, invite_link, people, remove_person, sign_in, sign_up
from benchmarks import load
from benchmarks.load import Annotator, Written, add_cards
from dialogue import AkuError, Registry, label_studio

pytestmark = pytest.mark.e2e
PASSWORD = "a-long-enough-password"


def api(team: Any, method: str, path: str, **options: Any) -> Any:
    with provision.api(team.workspace, team.url) as http:
        answer = http.request(method, path, **options)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None


def browser(team: Any) -> httpx.Client:
    return httpx.Client(base_url=team.url, timeout=60, trust_env=False)


def test_up_ends_in_a_drafted_card(team: Any) -> None:
    facts = team.facts
    project = facts["project"]
    projects = {found["id"] for found in api(team, "GET", "/api/projects/")["results"]}
    team.run("provision")
    assert team.facts == facts, "provisioning twice changes nothing"
    assert {found["id"] for found in api(team, "GET", "/api/projects/")["results"]} == projects
    (backend,) = api(team, "GET", f"/api/ml?project={project}")
    assert (backend["url"], backend["is_interactive"], backend["auth_method"]) == (team.backend_url, True, "BASIC_AUTH")
    (hook,) = api(team, "GET", f"/api/webhooks/?project={project}")
    assert hook["headers"]["X-Webhook-Secret"] == team.secrets["WEBHOOK_SECRET"]
    team.run("aku", "plan", "-n", "2", "--push")
    task = api(team, "GET", f"/api/projects/{project}/next")
    checkpoint = Registry(team.workspace.checkpoints).current()
    assert checkpoint is not None
    (prediction,) = task["predictions"]
    assert prediction["model_version"] == checkpoint.id
    # A card with a turn to answer is drafted when it is opened.
    card = load.card(4)
    card["data"]["turns"][0]["text"] = "ただいま。"
    path = f"/api/projects/{project}/import?return_task_ids=true"
    (number,) = api(team, "POST", path, json=[card])["task_ids"]
    selected = {"selectedItems": {"all": False, "included": [number]}, "project": project}
    api(team, "POST", f"/api/dm/actions?id=retrieve_tasks_predictions&project={project}", json=selected)
    (drafted,) = api(team, "GET", f"/api/predictions?task={number}")
    assert drafted["model_version"] == checkpoint.id
    texts = label_studio.read_result(drafted["result"]).texts
    assert texts[0] == "ただいま。"
    assert texts[1].strip()


def test_turns_of_the_model_are_marked_by_a_service_of_its_own(team: Any) -> None:
    (number,) = add_cards(team, 1, 4)
    person = Annotator(team.url, team.facts["project"], team.facts["backend"], *next(load.accounts(team, 1)), turns=4)
    written = Written(number)
    reply = person.live_draft(written, ["ただいま。"])
    assert reply
    person.save(written, ["ただいま。", reply])
    person.submit(written)
    plain = load.card(4)["data"]["plan"]
    for _ in range(600):
        if api(team, "GET", f"/api/tasks/{number}")["data"]["plan"] != plain:
            return
        time.sleep(0.1)
    pytest.fail(f"never marked: {team.log('marks').read_text()}")


def test_no_secret_is_seen_and_nothing_is_written_elsewhere(team: Any) -> None:
    shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    logs = "".join(team.log(name).read_text(errors="replace") for name in team.processes)
    secrets = [v for k, v in team.secrets.items() if k not in ("LABEL_STUDIO_USERNAME", "BACKEND_USER")]
    assert len(secrets) >= 7
    for secret in secrets:
        assert secret not in shown
        assert secret not in logs
    assert team.workspace.secrets.stat().st_mode & 0o777 == 0o600
    # In the containers everything else is read-only, but for HOME, which is in memory.
    written = {path.name for path in team.folder.iterdir() if path.is_dir()}
    assert written == {"workspace", "label-studio", "home"}
    homes = {path.name for path in (team.folder / "home").iterdir() if any(path.iterdir())}
    assert homes <= {"tables", "label-studio", "aku"}


@pytest.mark.parametrize("address", ["http://169.254.169.254", "http://10.0.0.1:9090", "http://172.30.88.1:9090"])
def test_other_private_addresses_stay_out_of_reach(team: Any, address: str) -> None:
    with provision.api(team.workspace, team.url) as http:
        answer = http.post("/api/ml", json={"url": address, "project": team.facts["project"], "title": "evil"})
    assert answer.status_code == 403
    assert len(api(team, "GET", f"/api/ml?project={team.facts['project']}")) == 1


def test_nobody_signs_up_without_the_link(team: Any) -> None:
    link = invite_link(team.workspace)
    assert link.startswith(f"{team.url}/user/signup/?token=")
    query = link.partition("?")[2]
    for refused in ("", "token=guessed"):
        with browser(team) as visitor:
            assert sign_up(visitor, refused, "mallory@example.org", PASSWORD).status_code == 403
    with browser(team) as visitor:
        assert sign_up(visitor, query, "hanako@example.org", PASSWORD).status_code == 302
    renewed = invite_link(team.workspace, renew=True)
    assert renewed != link
    with browser(team) as visitor:
        assert sign_up(visitor, query, "late@example.org", PASSWORD).status_code == 403
    there = {person.email for person in people(team.workspace)}
    assert "hanako@example.org" in there
    assert not there & {"mallory@example.org", "late@example.org"}


def test_accounts_are_added_reset_and_removed(team: Any) -> None:
    first = add_person(team.workspace, "Taro@example.org")
    with pytest.raises(AkuError, match="has an account already"):
        add_person(team.workspace, "taro@example.org")
    with pytest.raises(AkuError, match="no e-mail address"):
        add_person(team.workspace, "taro")
    with browser(team) as taro:
        assert sign_in(taro, "taro@example.org", first).status_code == 302
        assert taro.get("/api/current-user/whoami").json()["email"] == "taro@example.org"
        token = {"Authorization": f"Token {taro.get('/api/current-user/token').json()['token']}"}
        assert httpx.get(f"{team.url}/api/projects/", headers=token).status_code == 200
        team.run("aku", "people", "remove", "taro@example.org")
        assert taro.get("/api/projects/").status_code == 401
        assert httpx.get(f"{team.url}/api/projects/", headers=token).status_code == 401
        assert sign_in(taro, "taro@example.org", first).status_code == 200  # the page again, with an error on it
    assert all(person.email != "taro@example.org" for person in people(team.workspace))
    printed = re.fullmatch(r"taro@example\.org  (\S+)\n", team.run("aku", "people", "reset", "taro@example.org").stdout)
    assert printed
    with browser(team) as taro:
        assert sign_in(taro, "taro@example.org", first).status_code == 200
        assert sign_in(taro, "taro@example.org", printed[1]).status_code == 302
    assert any(person.email == "taro@example.org" for person in people(team.workspace))
    with pytest.raises(AkuError, match="the software itself"):
        remove_person(team.workspace, team.secrets["LABEL_STUDIO_USERNAME"])


def test_two_people_on_one_card_lose_nothing(team: Any) -> None:
    (number,) = add_cards(team, 1, 4)
    facts = team.facts
    pair = [
        Annotator(team.url, facts["project"], facts["backend"], *account, turns=4) for account in load.accounts(team, 2)
    ]
    mine = [Written(number), Written(number)]
    for texts in (["やあ。"], ["やあ。", "うん。"]):
        for index, (person, written) in enumerate(zip(pair, mine, strict=True)):
            person.save(written, [f"{text}{index}" for text in texts])
    assert mine[0].draft != mine[1].draft
    pair[0].submit(mine[0])
    # The other's draft is as it was, and a submit with a foreign draft is refused.
    draft = api(team, "GET", f"/api/drafts/{mine[1].draft}/")
    found = label_studio.read_result(draft["result"]).texts
    assert (found[0], found[1]) == ("やあ。1", "うん。1")
    thief = Written(number, draft=mine[1].draft, texts=("うばう。",))
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        pair[0].submit(thief)
    pair[1].submit(mine[1])
    assert [load.check(team, person.id, written) for person, written in zip(pair, mine, strict=True)] == [[], []]
    assert len(api(team, "GET", f"/api/tasks/{number}/annotations/")) == 2
    # There are no roles: docs/deployment.md says that anybody may change anybody's annotation.
    changed = pair[1].http.patch(f"/api/annotations/{mine[0].annotation}/", json={"lead_time": 1.0})
    assert changed.status_code == 200


def test_people_writing_at_once_lose_nothing(team: Any) -> None:
    outcome = load.load(team, people=4, cards=1, turns=4)
    assert outcome.errors == []
    assert outcome.lost == []
    assert outcome.written == 4
    assert outcome.summary()["live draft"]["n"] == 8

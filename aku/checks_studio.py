"""Checks that ask the running Label Studio: token, labelling configuration, backend, webhook, address rule, sign-up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from aku.checks_installation import CONSTRAINTS, tested_versions
from aku.connection import connect
from aku.doctor import Check, Finding, fail, ok, warn
from aku.provision import api
from aku.servers import healthy
from dialogue import files, label_studio, migrations
from dialogue.genres import load_taxonomy
from dialogue.settings import Workspace

METADATA = "http://169.254.169.254/latest/meta-data/"
"""Where clouds hand out credentials to whoever can make a machine ask: the address that must stay out of reach."""
_STATES = {"CO": "connected", "DI": "disconnected", "ER": "in error", "TR": "training", "PR": "predicting"}
UP = "run `aku up`: it brings the project up to date."


def studio(workspace: Workspace) -> Iterator[Finding]:
    """Everything that only a running Label Studio can answer; when it is down, that is the one finding."""
    state = workspace.state / "studio.json"
    if not state.exists():
        yield ok("Label Studio", "not set up yet; `aku up` does it")
        return
    facts = files.read_json(state)
    url = str(facts["url"])
    if not healthy(f"{url}/health"):
        yield warn("Label Studio", f"does not answer at {url}, so it was not looked at.", "start it with `aku up`.")
        return
    yield from _version(workspace, url)
    connection = connect(workspace)  # tells a wrong token from a deleted project
    yield ok("token", "Label Studio accepts it")
    with api(workspace, url) as http:
        project = http.get(f"/api/projects/{connection.project}").raise_for_status().json()
        yield _config(workspace, str(project.get("label_config") or ""))
        yield from _backend(workspace, http, connection.project, facts)
        yield from _webhook(workspace, http, connection.project, facts)
        yield _address_rule(http, connection.project)
    yield _sign_up(url)


def _version(workspace: Workspace, url: str) -> Iterator[Finding]:
    with api(workspace, url) as http:
        answer = http.get("/api/version/")
    found = str((answer.json() if answer.is_success else {}).get("release") or "of an unknown version")
    tested = tested_versions(CONSTRAINTS).get("label-studio", found)
    if found != tested:
        message = f"{found} answers at {url}; tested is {tested}."
        yield warn("Label Studio", message, "install the tested version, or run the tests with this one.")
    else:
        yield ok("Label Studio", f"{found} is healthy at {url}")


def _config(workspace: Workspace, config: str) -> Finding:
    """The project's labelling configuration is the one this release would give it."""
    name = "label config"
    if config.strip() == label_studio.labeling_config(load_taxonomy(workspace.taxonomy)).strip():
        return ok(name, f"in step with this release (format {migrations.CONFIG_FORMAT})")
    found = migrations.config_format(config)
    if found is None:
        return fail(name, "the project has a labelling configuration of another product.", UP)
    if found > migrations.CONFIG_FORMAT:
        return fail(name, f"a later release gave the project format {found}.", "upgrade this installation.")
    if found < migrations.CONFIG_FORMAT:
        message = f"the project has format {found}, this release {migrations.CONFIG_FORMAT}."
        return fail(name, message, f"make a backup, then {UP}")
    return warn(name, "it differs from what this release or the genre list says.", UP)


def _backend(workspace: Workspace, http: httpx.Client, project: int, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """The backend is connected as Label Studio sees it: asking for the list makes it try."""
    name = "ML backend"
    rows = http.get("/api/ml", params={"project": project}).raise_for_status().json()
    ours = [row for row in rows if row["id"] == facts.get("backend") or row["url"] == facts.get("backend_url")]
    if not ours:
        yield fail(name, "the project has none.", UP)
        return
    row = ours[0]
    state = _STATES.get(str(row.get("state")), str(row.get("state")))
    if row.get("state") not in ("CO", "PR"):
        detail = str(row.get("error_message") or "").strip().splitlines()
        why = f" ({detail[-1][:160]})" if detail else ""
        yield fail(
            name, f"Label Studio can not reach {row['url']}: {state}{why}.", f"see logs/ml-backend.log, then {UP}"
        )
    elif not row.get("is_interactive"):
        yield fail(name, "is not interactive, so there are no live drafts.", UP)
    else:
        yield ok(name, f"{row['url']}, {state} as Label Studio sees it")
    if others := [str(row["url"]) for row in rows if row not in ours]:
        message = f"the project has another one: {', '.join(others)}."
        yield warn(name, message, "remove it under Settings → Model, unless you put it there.")


def _webhook(workspace: Workspace, http: httpx.Client, project: int, facts: Mapping[str, Any]) -> Iterator[Finding]:
    """The webhook is there, active, and carries the secret that the backend asks for."""
    hooks = http.get("/api/webhooks/", params={"project": project}).raise_for_status().json()
    target = f"{facts.get('backend_url')}/webhook"
    ours = [hook for hook in hooks if str(hook["url"]).rstrip("/") == target]
    secret = workspace.read_secrets().get("WEBHOOK_SECRET")
    if not ours:
        yield fail("webhook", "the project has none.", UP)
    elif not ours[0].get("is_active"):
        yield fail("webhook", "it is switched off.", UP)
    elif (ours[0].get("headers") or {}).get("X-Webhook-Secret") != secret:
        yield fail("webhook", "it carries another secret than the backend asks for.", UP)
    else:
        yield ok("webhook", "active, with the right secret")


def _address_rule(http: httpx.Client, project: int) -> Finding:
    """Label Studio refuses addresses that nobody may reach through it.

    An inactive webhook is offered: its address is checked, and nothing is ever sent to it.
    """
    name = "address rule"
    body = {"url": METADATA, "project": project, "is_active": False, "send_payload": False}
    answer = http.post("/api/webhooks/", json=body)
    if answer.status_code in (400, 403):
        return ok(name, "in force: cloud metadata is out of reach")
    if answer.is_success:
        http.delete(f"/api/webhooks/{answer.json()['id']}/").raise_for_status()
        return fail(
            name,
            "is not in force: whoever may edit the project can make Label Studio call machines of your network.",
            "start Label Studio with `aku up` or the deployment's environment, and unset SSRF_PROTECTION_ENABLED.",
        )
    return warn(name, f"could not be tried (status {answer.status_code}).", "see Label Studio's log.")


def _sign_up(url: str) -> Finding:
    """Nobody can make an account without an invitation; an empty form is sent, which makes none anywhere."""
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        page = http.get("/user/signup/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        form = {"csrfmiddlewaretoken": token[1] if token else ""}
        answer = http.post("/user/signup/", data=form, headers={"Referer": f"{url}/user/signup/"})
    if answer.status_code == 403:
        return ok("sign-up", "by invitation only")
    return fail(
        "sign-up",
        "everybody who reaches Label Studio can make an account.",
        "start it with `aku up`, or set LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK=true.",
    )


CHECKS: tuple[tuple[str, Check], ...] = (("Label Studio", studio),)

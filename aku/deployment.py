"""What a team's studio needs beside `aku up`: provisioning across containers, and accounts for people.

`docker-compose.yml` starts the servers; what is here brings the project up to date once they answer, and speaks
Label Studio's own pages and REST API for accounts.  Open-source Label Studio has no roles: every account may do
everything but remove people (docs/deployment.md).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

import httpx

from aku import provision, servers
from aku.connection import connect
from aku.settings import studio_settings
from dialogue import files
from dialogue.errors import AkuError, BackendError, LabelStudioError
from dialogue.settings import Workspace

NO_ACCOUNT = 3
"""Exit status of `aku.account` when there is no such account."""
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


@dataclasses.dataclass(frozen=True, slots=True)
class Person:
    """An account of Label Studio; `last_activity` is an ISO time, empty for somebody who never came."""

    id: int
    email: str
    name: str
    last_activity: str


def provision_team(workspace: Workspace, url: str, backend_url: str, public_url: str, wait: float = 300) -> int:
    """Wait for both servers, then make or update project, backend connection and webhook; returns the project's id.

    `url` and `backend_url` are how the servers reach each other; `public_url` is what people open.  Doing it
    twice changes nothing.  Raises `LabelStudioError` or `BackendError` when a server does not answer in time.
    """
    _wait("Label Studio", url, wait, LabelStudioError)
    _wait("The ML backend", backend_url, wait, BackendError)
    project = provision.provision_project(workspace, url, studio_settings(workspace).title)
    provision.provision_backend(workspace, url, project, backend_url)
    state = workspace.state / "studio.json"
    files.write_json(state, {**files.read_json(state), "public_url": public_url})
    return project


def _wait(name: str, address: str, seconds: float, error: type[AkuError]) -> None:
    end = time.monotonic() + seconds
    while not servers.healthy(f"{address}/health"):
        if time.monotonic() > end:
            raise error(f"{name} does not answer at {address} within {seconds:.0f} s; see its log.")
        time.sleep(0.5)


def people(workspace: Workspace) -> list[Person]:
    """Return everybody who has an account and was not removed, in the order of their numbers."""
    with _api(workspace) as http:
        rows = _checked(http.get("/api/users/")).json()
    return [
        Person(
            int(row["id"]),
            str(row["email"]),
            f"{row.get('first_name') or ''} {row.get('last_name') or ''}".strip(),
            str(row.get("last_activity") or ""),
        )
        for row in sorted(rows, key=lambda row: int(row["id"]))
        if "@" in str(row["email"])  # somebody who was removed is listed without an address
    ]


def invite_link(workspace: Workspace, *, renew: bool = False) -> str:
    """Return the link with which a person makes their own account; with `renew` older links stop working."""
    public = connect(workspace).url
    with _api(workspace) as http:
        if renew:
            _checked(http.post("/api/invite/reset-token"))
        path = str(_checked(http.get("/api/invite")).json()["invite_url"])
    return f"{public}{urlsplit(path).path}?{urlsplit(path).query}"


def add_person(workspace: Workspace, email: str) -> str:
    """Make an account and return its password, which is kept nowhere.

    Label Studio's API can not set a password, so this fills in its sign-up page with the invite link.
    Raises `LabelStudioError` if the address is malformed or taken.
    """
    if not _EMAIL.fullmatch(email):
        raise LabelStudioError(f"{email!r} is no e-mail address; give one such as hanako@example.org.")
    email = email.lower()
    if any(person.email == email for person in people(workspace)):
        raise LabelStudioError(f"{email} has an account already; `aku people reset {email}` gives it a new password.")
    password = new_password()
    query = urlsplit(invite_link(workspace)).query
    with httpx.Client(base_url=_address(workspace), timeout=60, trust_env=False) as browser:
        sign_up(browser, query, email, password)
    if all(person.email != email for person in people(workspace)):
        raise LabelStudioError(f"Label Studio made no account for {email}; see its log.")
    return password


def sign_up(browser: httpx.Client, query: str, email: str, password: str) -> httpx.Response:
    """Fill in the sign-up page as a person does; returns Label Studio's answer, 302 when the account is made."""
    page = f"/user/signup/?{query}"
    browser.get(page)
    form = {"email": email, "password": password, "csrfmiddlewaretoken": _csrf(browser)}
    return browser.post(page, data=form, headers={"Referer": f"{browser.base_url}"})


def sign_in(browser: httpx.Client, email: str, password: str) -> httpx.Response:
    """Fill in the login page; returns Label Studio's answer, 302 when the person is let in."""
    browser.get("/user/login/")
    form = {"email": email, "password": password, "csrfmiddlewaretoken": _csrf(browser)}
    answer = browser.post("/user/login/", data=form, headers={"Referer": f"{browser.base_url}"})
    browser.headers["X-CSRFToken"] = _csrf(browser)
    return answer


def _csrf(browser: httpx.Client) -> str:
    return browser.cookies.get("csrftoken") or ""


def reset_password(workspace: Workspace, email: str) -> str:
    """Give an account a new password and return it; somebody who was removed is let in again."""
    password = new_password()
    _change_account(workspace, email, password)
    return password


def remove_person(workspace: Workspace, email: str) -> None:
    """Shut somebody out at once, sessions and tokens included; what the person wrote stays, and stays theirs."""
    if email.lower() == workspace.read_secrets().get("LABEL_STUDIO_USERNAME", "").lower():
        raise LabelStudioError(f"{email} is the account that the software itself uses; it can not be removed.")
    _change_account(workspace, email, None)


def _change_account(workspace: Workspace, email: str, password: str | None) -> None:
    """Run `aku.account` on the database: the workspace's SQLite, or PostgreSQL as the environment names it."""
    with tempfile.TemporaryDirectory() as scratch:
        data = scratch if os.environ.get("DJANGO_DB") else str(workspace.home / "label-studio")
        environment = {"LABEL_STUDIO_BASE_DATA_DIR": data, "SECRET_KEY": secrets.token_hex(), "LOG_LEVEL": "ERROR"}
        environment |= {"COLLECT_ANALYTICS": "false", "SENTRY_DSN": "", "LATEST_VERSION_CHECK": "false"}
        result = subprocess.run(
            [sys.executable, "-m", "aku.account"],
            env={**os.environ, **environment},
            input=json.dumps({"email": email.lower(), "password": password}),
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode == NO_ACCOUNT:
        raise LabelStudioError(f"{email} has no account; `aku people list` shows who has.")
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise LabelStudioError(f"Label Studio's database did not take the change for {email} ({reason}).")


def new_password() -> str:
    """Return a random password of 96 bits."""
    return secrets.token_urlsafe(12)


def _address(workspace: Workspace) -> str:
    connect(workspace)  # says what is wrong in one sentence
    return str(files.read_json(workspace.state / "studio.json")["url"])


def _api(workspace: Workspace) -> httpx.Client:
    return provision.api(workspace, _address(workspace))


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.status_code >= 400:
        where = f"{answer.request.method} {answer.request.url.path}"
        raise LabelStudioError(f"Label Studio refuses {where} ({answer.status_code}).")
    return answer

"""Bringing a Label Studio project to the state this software needs; doing it twice changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from aku.connection import connect
from dialogue import files, label_studio, migrations
from dialogue.errors import LabelStudioError
from dialogue.genres import load_taxonomy
from dialogue.settings import Workspace

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

GUIDE = Path(__file__).parent.parent / "docs" / "annotator-guide.ja.md"


def provision_project(workspace: Workspace, url: str, title: str) -> int:
    """Make the project, or bring an existing one up to date; returns its id and notes it in the workspace.

    A project that was deleted in Label Studio is made anew.  A workspace of an older release is upgraded, one of a
    later release refused (`SettingsError`), and so is a project whose screen is a later release's.
    """
    migrations.upgrade_workspace(workspace)
    state = workspace.state / "studio.json"
    config = label_studio.labeling_config(load_taxonomy(workspace.taxonomy)).strip()  # as Label Studio stores it
    wanted = {
        "title": title,
        "label_config": config,
        "expert_instruction": guide_html(),
        "show_instruction": False,
        "show_skip_button": True,
        "enable_empty_annotation": False,
        "maximum_annotations": 1,
        "show_collab_predictions": True,
        "color": "#D9488B",
    }
    known = dict(files.read_json(state)) if state.exists() else {}
    try:
        project = connect(workspace).project if known.get("url") == url else None
    except LabelStudioError as error:
        if "has no project" not in str(error):
            raise
        project = None
    client = _client(workspace, url)
    if project is None:
        # A title found on the server means that the state file was lost, not the project.  Else a restored
        # studio has come up at another address, and the project was renamed: its number and screen tell it.
        there = list(client.projects.list())
        project = next((p.id for p in there if p.title == title), None)
        if project is None:
            numbered = [p for p in there if p.id == known.get("project") and p.label_config]
            project = next((p.id for p in numbered if migrations.config_format(str(p.label_config))), None)
    if project is None:
        project = int(client.projects.create(**wanted).id)
    else:
        current = client.projects.get(id=project)
        if (migrations.config_format(str(current.label_config)) or 0) > migrations.CONFIG_FORMAT:
            raise LabelStudioError(f"project {project} has the screen of a later release; upgrade this installation.")
        changed = {k: v for k, v in wanted.items() if getattr(current, k, None) != v and k != "title"}
        if changed:
            client.projects.update(id=project, **changed)
    files.write_json(state, {**known, "url": url, "project": project})
    _provide_view(workspace, url, int(project))
    return int(project)


def _provide_view(workspace: Workspace, url: str, project: int) -> None:
    """Give a new project one tab that shows what people look for, without the columns meant for programs."""
    hidden = [f"tasks:data.{name}" for name in ("plan", "turns", "genre", "record", "plan_key", "opener")]
    hidden += ["tasks:drafts", "tasks:annotations_ids", "tasks:predictions_results", "tasks:annotations_results"]
    data = {"title": "カード", "type": "list", "hiddenColumns": {"explore": hidden, "labeling": hidden}}
    with api(workspace, url) as http:
        if not _json(http.get("/api/dm/views/", params={"project": project})):
            _json(http.post("/api/dm/views/", json={"project": project, "data": data}))


def provision_backend(workspace: Workspace, url: str, project: int, backend_url: str) -> int:
    """Connect the ML backend to the project (interactive, basic auth) and guard its webhook; returns its id.

    Uses the REST API directly, since Label Studio wants `url` and `project` on every change.  A backend or webhook
    that stands there under the address of an earlier start is moved to this one, not joined by a second.
    """
    state = workspace.state / "studio.json"
    known = dict(files.read_json(state))
    secrets = workspace.read_secrets()
    wanted: dict[str, Any] = {
        "url": backend_url,
        "project": project,
        "title": "Aku",
        "is_interactive": True,
        "auth_method": "BASIC_AUTH",
        "basic_auth_user": secrets["BACKEND_USER"],
        "basic_auth_pass": secrets["BACKEND_PASSWORD"],
        "timeout": 100,
    }
    with api(workspace, url) as http:
        before = known.get("backend_url") if known.get("project") == project else None
        there = _json(http.get("/api/ml", params={"project": project}))
        present = sorted((b for b in there if b["url"] in (backend_url, before)), key=lambda b: b["url"] != backend_url)
        if present:
            backend = int(present[0]["id"])
            for stale in present[1:]:
                http.delete(f"/api/ml/{stale['id']}").raise_for_status()
            _json(http.patch(f"/api/ml/{backend}", json=wanted))
        else:
            backend = int(_json(http.post("/api/ml", json=wanted))["id"])
        hooks = _json(http.get("/api/webhooks/", params={"project": project}))
        target = f"{backend_url}/webhook"
        hook = {
            "url": target,
            "project": project,
            "send_payload": True,
            "send_for_all_actions": True,
            "headers": {"X-Webhook-Secret": secrets["WEBHOOK_SECRET"]},
            "is_active": True,
        }
        mine = [h for h in hooks if h["url"].rstrip("/") in (target, f"{before}/webhook")]
        mine.sort(key=lambda h: h["url"].rstrip("/") != target)
        if not mine:
            _json(http.post("/api/webhooks/", json=hook))
        elif any(mine[0].get(key) != hook[key] for key in ("url", "headers", "is_active")):
            _json(http.patch(f"/api/webhooks/{mine[0]['id']}/", json=hook))
        for stale in mine[1:]:
            http.delete(f"/api/webhooks/{stale['id']}/").raise_for_status()
        # Opening a card that has no draft yet asks the backend for one.
        _json(http.patch(f"/api/projects/{project}", json={"evaluate_predictions_automatically": True}))
    files.write_json(state, {**known, "backend": backend, "backend_url": backend_url})
    return backend


def show_version(workspace: Workspace, url: str, project: int, version: str) -> None:
    """Let the project show predictions of `version` (a checkpoint id, or `scaffold`)."""
    with api(workspace, url) as http:
        _json(http.patch(f"/api/projects/{project}", json={"model_version": version}))


def api(workspace: Workspace, url: str) -> httpx.Client:
    """Return an HTTP client for Label Studio's REST API that carries the workspace's token."""
    token = workspace.read_secrets()["LABEL_STUDIO_USER_TOKEN"]
    return httpx.Client(base_url=url, headers={"Authorization": f"Token {token}"}, timeout=120, trust_env=False)


def guide_html() -> str:
    """Render the annotators' guide for Label Studio's *Instructions* button."""
    from markdown_it import MarkdownIt

    return str(MarkdownIt("commonmark").enable("table").render(GUIDE.read_text(encoding="utf-8")))


def _client(workspace: Workspace, url: str) -> LabelStudio:
    from label_studio_sdk import LabelStudio

    return LabelStudio(base_url=url, api_key=workspace.read_secrets()["LABEL_STUDIO_USER_TOKEN"], timeout=120)


def _json(response: httpx.Response) -> Any:
    if response.status_code >= 400:
        detail = response.text[:300].replace("\n", " ")
        raise LabelStudioError(
            f"Label Studio refuses {response.request.method} {response.request.url.path} "
            f"({response.status_code}): {detail}"
        )
    return response.json()

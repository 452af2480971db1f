"""How commands reach the workspace's Label Studio."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from dialogue import files
from dialogue.errors import LabelStudioError
from dialogue.settings import Workspace

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio


@dataclasses.dataclass(frozen=True, slots=True)
class Connection:
    """A client that was seen to work, the project's id, and the address people open.

    Between containers the client uses another address than people do.
    """

    client: LabelStudio
    project: int
    url: str


def connect(workspace: Workspace) -> Connection:
    """Return a working connection; raises `LabelStudioError` saying whether the server or the token is wrong."""
    state = workspace.state / "studio.json"
    token = workspace.read_secrets().get("LABEL_STUDIO_USER_TOKEN")
    if not state.exists() or not token:
        raise LabelStudioError(f"{workspace.home}: no studio was set up here yet; run `aku up` first.")
    facts = files.read_json(state)
    url, project = str(facts["url"]), int(facts["project"])
    from label_studio_sdk import LabelStudio

    client = LabelStudio(base_url=url, api_key=token, timeout=60)
    check(client, url, project)
    return Connection(client, project, str(facts.get("public_url") or url))


def check(client: LabelStudio, url: str, project: int) -> None:
    """Ask for the project once, to tell a dead server from a wrong token from a deleted project."""
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    try:
        client.projects.get(id=project)
    except httpx.HTTPError as error:
        raise LabelStudioError(f"Label Studio does not answer at {url}; start it with `aku up`.") from error
    except ApiError as error:
        if error.status_code in (401, 403):
            problem = "refuses the token in secrets.env; restore that file, or remove it and run `aku up`"
        elif error.status_code == 404:
            problem = f"has no project {project}; run `aku up` to make it anew"
        else:
            problem = f"answers with status {error.status_code}; see its log"
        raise LabelStudioError(f"Label Studio at {url} {problem}.") from error

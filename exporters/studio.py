"""Reading tasks from Label Studio page by page, and calling it again when it stumbles."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime
import email.utils
import json
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from dialogue.errors import LabelStudioError

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

T = TypeVar("T")

FIELDS = (
    "id,data,annotations,predictions,updated_at,total_annotations,project,"
    "result,completed_by,was_cancelled,lead_time,created_at,parent_prediction"
)
"""Fields of a task (first line) and, since Label Studio applies the list to both, of its annotations (second).

Asking for these alone makes the server answer in about two thirds of the time of full rows.
"""

ATTEMPTS = 6
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 20.0


def retrying(call: Callable[[], T]) -> T:
    """Return `call()`, tried again with doubling pauses after a dropped connection, a time-out, 429 or 5xx.

    Raises `LabelStudioError` when the last attempt fails too, or at once for any other refusal.
    """
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    problem = ""
    for attempt in range(ATTEMPTS):
        wait = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
        try:
            return call()
        except httpx.HTTPError as error:
            problem, cause = f"does not answer ({type(error).__name__})", error
        except json.JSONDecodeError as error:
            problem, cause = "sends a broken answer", error  # type: ignore[assignment]
        except ApiError as error:
            status = error.status_code or 0
            if status not in (408, 429) and status < 500:
                raise LabelStudioError(_refusal(status)) from error
            problem, cause = f"answers with status {status}", error
            wait = _retry_after(error.headers or {}, wait)
        if attempt == ATTEMPTS - 1:
            raise LabelStudioError(
                f"Label Studio {problem}, {ATTEMPTS} times in a row; see its log, then run the command again: "
                "it goes on where it stopped."
            ) from cause
        time.sleep(wait)
    raise AssertionError("unreachable")


def _refusal(status: int) -> str:
    reason = {
        401: "refuses the token; check secrets.env",
        403: "refuses access; check the token's user",
        404: "has no such project; run `aku up`",
    }.get(status, f"answers with status {status}; see its log")
    return f"Label Studio {reason}."


def _retry_after(headers: dict[str, str], default: float) -> float:
    value = {k.lower(): v for k, v in headers.items()}.get("retry-after", "")
    return min(float(value), LONGEST_PAUSE) if value.isdigit() else default


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """One page of tasks as Label Studio's JSON objects, the totals of the whole query, and the server's clock."""

    tasks: list[dict[str, Any]]
    total: int
    total_annotations: int
    at: datetime.datetime | None


def query(*conditions: tuple[str, str, str, Any]) -> str:
    """Return a Data Manager query: all `(column, operator, type, value)` conditions, ordered by task id."""
    items = [
        {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
        for column, operator, kind, value in conditions
    ]
    return json.dumps({"filters": {"conjunction": "and", "items": items}, "ordering": ["tasks:id"]})


def get_page(
    client: LabelStudio, project: int, query_json: str, *, size: int, include: str = FIELDS, page: int = 1
) -> Page:
    """Read one page of tasks.

    The SDK's own HTTP client is called rather than `tasks.list`: it carries the same token and address, but
    leaves out the conversion of every row into models, which costs a fifth of the time and turns the
    timestamps this file compares into `datetime`s of less precision.
    """
    from label_studio_sdk.core.api_error import ApiError

    def call() -> Page:
        response = client._client_wrapper.httpx_client.request(
            "api/tasks/",
            method="GET",
            params={
                "project": project,
                "page": page,
                "page_size": size,
                "fields": "all",
                "include": include,
                "resolve_uri": False,
                "query": query_json,
            },
            request_options={"max_retries": 0},
        )
        if response.status_code != 200:
            raise ApiError(status_code=response.status_code, headers=dict(response.headers), body=response.text[:500])
        body = response.json()
        return Page(body["tasks"], int(body["total"]), int(body["total_annotations"]), _date(response.headers))

    return retrying(call)


def _date(headers: Any) -> datetime.datetime | None:
    try:
        return email.utils.parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return None


def iter_tasks(
    client: LabelStudio, project: int, *conditions: tuple[str, str, str, Any], size: int, include: str = FIELDS
) -> Iterator[Page]:
    """Yield pages of tasks in order of their ids.

    Each request asks for the ids after the last one seen, so that tasks which come or go meanwhile shift nothing.
    """

    def read(last: int) -> Page:
        found = query(*conditions, ("id", "greater", "Number", last))
        return get_page(client, project, found, size=size, include=include)

    with concurrent.futures.ThreadPoolExecutor(1) as ahead:
        page = read(0)
        while len(page.tasks) == size:
            coming = ahead.submit(read, int(page.tasks[-1]["id"]))  # Label Studio works while the page is worked on
            yield page
            page = coming.result()
        yield page


def project_name(client: LabelStudio, project: int) -> str:
    """Return a project's number and the second it was made in, `"4.1795352884"`.

    Label Studio names it like this to its backends.  It tells the project from one with the same number in a
    database that was made anew.
    """
    found = retrying(lambda: client.projects.get(id=project, request_options={"max_retries": 0}))
    return f"{project}.{int(found.created_at.timestamp())}"

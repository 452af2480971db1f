"""Short words for exporting from a real Label Studio and for writing into it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dialogue import Dialogue, files, label_studio, load_taxonomy, read_dialogues
from exporters import DatasetVersion, ExportSettings, export_project
from exporters import studio as pages
from exporters.cache import TaskCache
from exporters.splits import SPLITS

ROOT = Path(__file__).parent.parent.parent
SETTINGS = ExportSettings(page_size=50)


def export(studio: Any, project: int, datasets: Path, settings: ExportSettings = SETTINGS) -> DatasetVersion:
    return export_project(
        studio.client, project, datasets, settings, taxonomy=load_taxonomy(), url=studio.url, pseudonym_salt="pepper"
    )


def records(version: DatasetVersion) -> dict[str, Dialogue]:
    paths = [version.file(split) for split in SPLITS]
    return {d.id: d for path in paths if path.stat().st_size for d in read_dialogues(path)}


def rejected(version: DatasetVersion) -> list[dict[str, Any]]:
    return [row for _, row in files.read_jsonl(version.path / "rejected.jsonl")]


def call(studio: Any, method: str, path: str, value: Any = None) -> Any:
    response = studio.client._client_wrapper.httpx_client.request(path, method=method, json=value)
    assert response.status_code < 300, response.text
    return response.json() if response.content else None


def annotate(studio: Any, task: int, dialogue: Dialogue, **more: Any) -> int:
    row = label_studio.to_annotation(dialogue) | {"lead_time": 33.25} | more
    return int(call(studio, "POST", f"api/tasks/{task}/annotations/", row)["id"])


def task_ids(studio: Any, project: int) -> list[int]:
    found = pages.iter_tasks(studio.client, project, size=1000, include="id,data")
    return [task["id"] for page in found for task in page.tasks]


def refreshed(studio: Any, project: int, path: Path) -> tuple[int, int]:
    cache = TaskCache(path, pages.project_name(studio.client, project))
    try:
        return cache.refresh(studio.client, project, size=50)
    finally:
        cache.close()


def aku(home: Path, *arguments: str) -> tuple[int, str]:
    """Run the command in a process of its own; returns its exit code and what it prints."""
    command = [sys.executable, "-c", "from aku.cli import main; main()", "--home", str(home), *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    found = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, env=environment)
    return found.returncode, found.stdout + found.stderr

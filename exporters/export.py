"""From annotations, or from a file of records, to a data set version."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dialogue import FileError, Taxonomy, iter_dialogues
from dialogue.migrations import RECORD_FORMAT
from exporters import card, checks, duplicates, splits, studio, versions
from exporters.annotations import BROKEN, Accepted, Reader, Rejected
from exporters.cache import TaskCache
from exporters.provenance import read_journal
from exporters.settings import ExportSettings
from exporters.spool import PREFIX, Spool, spool
from exporters.versions import DatasetVersion

if TYPE_CHECKING:
    from label_studio_sdk import LabelStudio

Progress = Callable[[int, int], None]
FORMAT = 1
"""Raise it when the same annotations would give other files, so that kept results are not taken for current ones."""

_LEFTOVER = re.compile(r"\.[0-9a-f]{12}\..+")


def export_project(
    client: LabelStudio,
    project: int,
    datasets: Path,
    settings: ExportSettings,
    *,
    taxonomy: Taxonomy,
    url: str,
    pseudonym_salt: str,
    progress: Progress | None = None,
    journal: Path | None = None,
) -> DatasetVersion:
    """Make a data set version from the finished annotations of a Label Studio project.

    Only what changed since the last export is read.  The same annotations give the same version.

    Args:
        client: a Label Studio SDK client.
        project: the project's id.
        datasets: the workspace's `datasets` folder.
        settings: the `[export]` section.
        taxonomy: topics; genres that are not in it are listed in the manifest.
        url: where people open Label Studio, for links.
        pseudonym_salt: secret from which annotators' pseudonyms are derived.
        progress: called with tasks read and tasks in all.
        journal: the backend's live-chat journal; default `state/drafts.jsonl` beside `datasets`.

    Raises:
        LabelStudioError: it can not be reached; what was read is kept for the next run.
        FileError: another export is running, the split ledger is broken, or the disk is full.
    """
    journal = datasets.parent / "state" / "drafts.jsonl" if journal is None else journal
    with _locked(datasets):
        name = studio.project_name(client, project)
        cache = TaskCache(datasets / ".cache" / f"project-{project}.sqlite", name)
        try:
            cache.refresh(client, project, size=settings.page_size, progress=progress)
            facts = [name, url, pseudonym_salt, settings, taxonomy, _content(journal), cache.generation]
            built = cache.built
            if built.get("from") == _digest(*facts, _content(datasets / "splits.json")):
                with contextlib.suppress(FileError):  # somebody removed or changed the version: make it again
                    versions.verify_version(versions.get_version(datasets, built["version"]))
                    return versions.use_version(datasets, built["version"])
            reader = Reader(settings, url, project, pseudonym_salt, read_journal(journal, name))
            with spool(datasets) as records:
                _fill(records, (row for task in cache.tasks() for row in reader.read(task)), reader)
                version = build_version(records, datasets, settings, taxonomy)
            cache.set_built({"from": _digest(*facts, _content(datasets / "splits.json")), "version": version.id})
            return version
        finally:
            cache.close()


def _digest(*facts: object) -> str:
    """Hash everything an export depends on besides the annotations, which the cache's generation stands for."""
    return hashlib.sha256(repr((FORMAT, facts)).encode("utf-8", "replace")).hexdigest()


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def export_file(
    path: Path, datasets: Path, settings: ExportSettings, *, taxonomy: Taxonomy, progress: Progress | None = None
) -> DatasetVersion:
    """Make a data set version from a canonical JSONL file: the same splits, checks and card, without Label Studio.

    Raises `FileError` and `RecordError` for what is wrong with the file.
    """
    with _locked(datasets), spool(datasets) as records:
        for number, dialogue in enumerate(iter_dialogues(path), 1):
            records.add(dialogue)
            if progress is not None and number % 500 == 0:
                progress(number, number)
        return build_version(records, datasets, settings, taxonomy)


def _fill(records: Spool, rows: Iterable[Accepted | Rejected], reader: Reader) -> None:
    for row in rows:
        if isinstance(row, Rejected):
            records.reject(row)
        elif not records.add(row.dialogue, row.drafts):
            records.reject(reader.repeated(row))


def build_version(records: Spool, datasets: Path, settings: ExportSettings, taxonomy: Taxonomy) -> DatasetVersion:
    """Split, check and write the records of a spool; the caller holds the folder's lock."""
    facts = list(records.facts())
    names = {fact.number: fact.id for fact in facts}
    pairs = list(duplicates.near_duplicates(records.conversations(), records.conversation, settings.near_duplicate))
    groups = splits.components(facts, [(a, b) for a, b, _ in pairs])
    ledger_file = datasets / "splits.json"
    ledger = splits.read_ledger(ledger_file)
    split = splits.assign(groups, ledger, settings)
    records.assign((split[fact.id], fact.number) for fact in facts)
    findings = {
        "duplicates": checks.duplicate_findings([(names[a], names[b], s) for a, b, s in pairs], split),
        "leaks": checks.leak_findings(groups, split),
        "personal_data": checks.personal_findings(records),
    }
    version = versions.content_id(records.lines)
    manifest = {
        "id": version,
        "format": RECORD_FORMAT,
        **_counts(records),
        "components": {"number": len(groups), "largest": max((len(g.members) for g in groups), default=0)},
        "findings": {name: len(rows) for name, rows in findings.items()},
        "unknown_genres": sorted({g for fact in facts for g in fact.genre} - set(taxonomy.names)),
        "settings": dataclasses.asdict(settings),
    }
    # The ledger first: what a version shows must never be forgotten, whatever happens in between.
    splits.write_ledger(ledger_file, ledger, split)
    readme = card.data_set_card(manifest, card.statistics(records))
    return versions.write_version(datasets, records, manifest, findings, readme)


def _counts(records: Spool) -> dict[str, Any]:
    found, rejected = records.split_counts(), records.rejected_counts()
    counts = {split: found.get(split, 0) for split in splits.SPLITS}
    counts["rejected"] = sum(rejected.get(BROKEN, {}).values())
    return {"counts": counts, "rejected": rejected}


@contextlib.contextmanager
def _locked(datasets: Path) -> Iterator[None]:
    """Let one export at a time work in the folder, and clear away what a killed one left there."""
    datasets.mkdir(parents=True, exist_ok=True)
    with (datasets / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FileError(f"{datasets}: another export is running; wait for it to finish.") from error
        for path in datasets.iterdir():
            if path.is_dir() and (path.name.startswith(PREFIX) or _LEFTOVER.fullmatch(path.name)):
                shutil.rmtree(path, ignore_errors=True)
            elif path.name.startswith((".splits.json.", ".latest.json.")):
                path.unlink(missing_ok=True)
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise FileError(f"{datasets}: writing failed ({error}); free some space and run again.") from error

"""What `aku doctor` finds: on an empty workspace, a sound one, with each thing broken, and in a running studio."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aku import checks_installation, checks_studio, checks_workspace, provision
from aku.database import SQLITE
from aku.doctor import Finding, examine, has_failed
from aku.servers import ensure_secrets
from dialogue import Registry, SettingsError, Workspace, files, label_studio, load_taxonomy
from exporters import ExportSettings, export_file

AKU = str(Path(sys.executable).with_name("aku"))


def findings(workspace: Workspace, name: str) -> list[Finding]:
    """What the workspace's own checks find under a name."""
    return [f for f in examine(workspace, checks_workspace.CHECKS) if f.name == name]


def level(workspace: Workspace, name: str) -> str:
    return max((f.level for f in findings(workspace, name)), key=("OK", "WARN", "FAIL").index)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A sound workspace: secrets, database, a data set version, a checkpoint in use, a fresh backup."""
    monkeypatch.delenv("DJANGO_DB", raising=False)
    found = Workspace(tmp_path / "home")
    ensure_secrets(found, "a@b")
    (found.home / SQLITE).parent.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(found.home / SQLITE)) as connection, connection:
        connection.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, data TEXT)")
        connection.executemany("INSERT INTO task VALUES (?, ?)", [(i, "x" * 500) for i in range(200)])
    starter = Path(__file__).parent.parent.parent / "examples" / "starter.jsonl"
    export_file(starter, found.datasets, ExportSettings(), taxonomy=load_taxonomy())
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    registry = Registry(found.checkpoints)
    registry.use(registry.add(model, {"format": "tags"}).id, {"open": False})
    now = datetime.datetime.now(datetime.UTC).isoformat()
    files.write_json(found.state / "backup.json", {"path": "/mnt/disk/aku.tar.gz", "created_at": now})
    return found


def test_a_sound_workspace_is_in_order(workspace: Workspace) -> None:
    found = list(examine(workspace, checks_workspace.CHECKS))
    assert {f.level for f in found} == {"OK"}, found
    assert [f.name for f in found] == [name for name, _ in checks_workspace.CHECKS]


def test_an_empty_workspace_is_no_failure(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("POSTGRE_", "DJANGO_DB"))}
    for home in (tmp_path / "absent", tmp_path):
        settings = tmp_path / "aku.toml"
        command = [AKU, "--home", str(home), "doctor", "--json"]
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        rows = {row["name"]: row for row in json.loads(result.stdout)}
        bad = {name for name, row in rows.items() if row["level"] == "FAIL"}
        assert bad <= {"ports", "disk", "packages"}, result.stdout  # these depend on the machine
        assert result.returncode == (1 if bad else 0)
        assert rows["workspace"]["level"] == "WARN"
        assert "aku up" in rows["workspace"]["remedy"]
    assert not settings.exists(), "the doctor writes nothing"
    assert list(tmp_path.iterdir()) == []


def private_file(workspace: Workspace) -> None:
    workspace.secrets.chmod(0o644)


def open_folder(workspace: Workspace) -> None:
    (workspace.home / "label-studio").chmod(0o755)


def lost_secrets(workspace: Workspace) -> None:
    workspace.secrets.unlink()
    files.write_json(workspace.state / "studio.json", {"url": "http://127.0.0.1:1", "project": 1})


def broken_database(workspace: Workspace) -> None:
    path = workspace.home / SQLITE
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 3] = b"\xff" * 8192
    path.write_bytes(data)


def no_database(workspace: Workspace) -> None:
    (workspace.home / SQLITE).write_text("no database " * 1000)


def changed_record(workspace: Workspace) -> None:
    path = next(workspace.datasets.glob("*/train.jsonl"))
    path.write_text(path.read_text().replace("Aku", "aku", 1))


def lost_version(workspace: Workspace) -> None:
    files.write_json(workspace.datasets / "latest.json", {"id": "0" * 12})


def changed_weights(workspace: Workspace) -> None:
    next(workspace.checkpoints.glob("*/model.safetensors")).write_bytes(b"others")


def pickle(workspace: Workspace) -> None:
    next(workspace.checkpoints.glob("*/aku.json")).with_name("pytorch_model.bin").write_bytes(b"cos\nsystem\n")


def lost_checkpoint(workspace: Workspace) -> None:
    files.write_json(workspace.checkpoints / "current.json", {"id": "0" * 12, "gate": {}})


def broken_current(workspace: Workspace) -> None:
    (workspace.checkpoints / "current.json").write_text("{")


def lost_base(workspace: Workspace) -> None:
    folder = next(workspace.checkpoints.glob("*/aku.json")).parent
    files.write_json(folder / "adapter_config.json", {"base_model_name_or_path": "/nowhere"})
    from dialogue.checkpoints import content_id

    folder.rename(folder.with_name(content_id(folder)))


def broken_settings(workspace: Workspace) -> None:
    workspace.settings.write_text("[studio]\nporrt = 7\n")


def later_workspace(workspace: Workspace) -> None:
    files.write_json(workspace.state / "format.json", {"format": 99})


@pytest.mark.parametrize(
    ("break_it", "name", "word"),
    [
        (private_file, "secrets", "chmod 600"),
        (open_folder, "secrets", "chmod 700"),
        (lost_secrets, "secrets", "backup"),
        (broken_database, "database", "restore"),
        (no_database, "database", "restore"),
        (changed_record, "data sets", "aku export"),
        (lost_version, "data sets", "aku export"),
        (changed_weights, "checkpoints", "train again"),
        (pickle, "checkpoints", "safetensors"),
        (lost_checkpoint, "checkpoints", "aku checkpoints use"),
        (broken_current, "checkpoints", "restore"),
        (lost_base, "checkpoints", "put the base model back"),
        (broken_settings, "settings", "porrt"),
        (later_workspace, "workspace", "upgrade"),
    ],
)
def test_what_is_broken_is_found_with_its_remedy(
    workspace: Workspace, break_it: Callable[[Workspace], None], name: str, word: str
) -> None:
    break_it(workspace)
    bad = [f for f in findings(workspace, name) if f.level == "FAIL"]
    assert bad
    assert any(word in f.message + f.remedy for f in bad), bad
    others = [f for f in examine(workspace, checks_workspace.CHECKS) if f.name != name]
    assert not has_failed(others), others


def test_a_backup_grows_old(workspace: Workspace) -> None:
    note = workspace.state / "backup.json"
    files.write_json(note, {"path": "/mnt/a.gz", "created_at": "2020-01-01T00:00:00+00:00"})
    assert level(workspace, "backup") == "WARN"
    note.unlink()
    assert "none was ever made" in findings(workspace, "backup")[0].message


def test_a_port_that_somebody_else_holds_is_found(workspace: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken, free = server.getsockname()[1], other.getsockname()[1]
        workspace.settings.write_text(f"[studio]\nport = {taken}\nbackend_port = {free}\n")
        first, second = checks_installation.ports(workspace)
    assert first.level == "FAIL"
    assert "[studio] port" in first.remedy
    assert second.level == "OK"


def test_the_installation_is_compared_with_the_tested_one(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = tmp_path / "constraints.txt"
    tested.write_text("# comment\nlabel_studio==0.9.9  # old\n\nflask==3.1\n")
    assert checks_installation.tested_versions(tested) == {"label-studio": "0.9.9", "flask": "3.1"}
    assert checks_installation.tested_versions(tmp_path / "absent") == {}
    monkeypatch.setattr(checks_installation, "CONSTRAINTS", tested)
    (found,) = checks_installation.packages(workspace)
    assert found.level == "WARN"
    assert "label-studio" in found.message


def test_a_check_that_breaks_is_a_finding(workspace: Workspace) -> None:
    def sentence(workspace: Workspace) -> list[Finding]:
        raise SettingsError("aku.toml: wrong.")

    def bug(workspace: Workspace) -> list[Finding]:
        raise ZeroDivisionError("oh")

    first, second = examine(workspace, [("a", sentence), ("b", bug)])
    assert (first.level, first.message) == ("FAIL", "aku.toml: wrong.")
    assert (second.level, "ZeroDivisionError" in second.message) == ("FAIL", True)


# -- in a running studio


def doctor(studio: Any, home: Path) -> dict[str, dict[str, str]]:
    """Run the command; returns the worst finding under each name."""
    result = studio.aku("--home", str(home), "doctor", "--json", check=False)
    order = ("OK", "WARN", "FAIL")
    rows = sorted(json.loads(result.stdout), key=lambda row: order.index(row["level"]))
    assert result.returncode == (1 if rows[-1]["level"] == "FAIL" else 0), result.stderr
    return {row["name"]: row for row in rows}


def asked(workspace: Workspace) -> dict[str, dict[str, str]]:
    """The same from within, only what Label Studio is asked."""
    return {f.name: dataclasses.asdict(f) for f in examine(workspace, checks_studio.CHECKS)}


@pytest.mark.e2e
def test_a_running_studio_is_healthy(studio: Any) -> None:
    found = doctor(studio, studio.workspace.home)
    names = ("Label Studio", "token", "label config", "ML backend", "webhook", "address rule", "sign-up", "ports")
    assert [found[name] for name in names if found[name]["level"] != "OK"] == []
    assert found["secrets"]["level"] == "OK"


@pytest.mark.e2e
def test_what_is_wrong_in_a_running_studio_is_found_and_mended(studio: Any, tmp_path: Path) -> None:
    workspace, project = studio.new_workspace(tmp_path / "home", "doctor")
    backend = provision.provision_backend(workspace, studio.url, project, studio.backend_url)
    state = workspace.state / "studio.json"
    with provision.api(workspace, studio.url) as http:
        hooks = http.get("/api/webhooks/", params={"project": project}).json()
        older = label_studio.labeling_config(load_taxonomy()).replace('name="turn_29"', 'name="spare"')
        http.patch(f"/api/projects/{project}", json={"label_config": older}).raise_for_status()
        passive = {"url": studio.backend_url, "project": project, "is_interactive": False, "auth_method": "BASIC_AUTH"}
        passive |= {"basic_auth_user": studio.secrets["BACKEND_USER"]}
        passive |= {"basic_auth_pass": studio.secrets["BACKEND_PASSWORD"]}
        http.patch(f"/api/ml/{backend}", json=passive).raise_for_status()
        for hook in hooks:
            http.patch(f"/api/webhooks/{hook['id']}/", json={**hook, "headers": {"X-Webhook-Secret": "old"}})
        found = asked(workspace)
        assert found["label config"]["level"] == "WARN"
        assert found["ML backend"]["level"] == "FAIL"
        assert found["webhook"]["level"] == "FAIL"
        assert "aku up" in found["webhook"]["remedy"]
        assert found["address rule"]["level"] == "OK"
        # What `aku up` does mends all three.
        provision.provision_project(workspace, studio.url, "doctor")
        provision.provision_backend(workspace, studio.url, project, studio.backend_url)
        found = asked(workspace)
        assert {found[n]["level"] for n in ("label config", "ML backend", "webhook")} == {"OK"}, found
        # A screen of another product, and no backend at all.
        foreign = '<View><Text name="t" value="$card"/></View>'
        http.patch(f"/api/projects/{project}", json={"label_config": foreign}).raise_for_status()
        http.delete(f"/api/ml/{backend}").raise_for_status()
        found = asked(workspace)
        assert found["label config"]["level"] == "FAIL"
        assert found["ML backend"]["level"] == "FAIL"
    workspace.write_secrets({**workspace.read_secrets(), "LABEL_STUDIO_USER_TOKEN": "0" * 40})
    found = asked(workspace)
    assert "refuses the token" in found["Label Studio"]["message"]
    files.write_json(state, {**files.read_json(state), "url": "http://127.0.0.1:1"})
    found = asked(workspace)
    assert found["Label Studio"]["level"] == "WARN"
    studio.client.projects.delete(id=project)

"""docker-compose.yml against the compose specification and against our own rules; what the images are built from."""

from __future__ import annotations

import fnmatch
import importlib.resources
import ipaddress
import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from aku import servers
from aku.cli import app
from benchmarks.team import interpolate
from dialogue import Workspace

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
JOBS = {"tables", "workspace", "provision"}
ON_DEMAND = {"aku"}


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, str]:
    """What `aku init` writes."""
    result = CliRunner().invoke(app, ["--home", str(tmp_path), "init"])
    assert result.exit_code == 0, result.output
    workspace = Workspace(tmp_path)
    assert stat.S_IMODE(workspace.secrets.stat().st_mode) == 0o600
    assert workspace.settings.is_file()
    return workspace.read_secrets()


@pytest.fixture
def compose(secrets: dict[str, str]) -> dict[str, Any]:
    return dict(yaml.safe_load(interpolate(TEXT, secrets)))


@pytest.fixture
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return dict(compose["services"])


def schema() -> dict[str, Any]:
    """The compose specification's own schema, as check-jsonschema carries it."""
    folder = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    return dict(json.loads((folder / "compose-spec.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker/cuda.yml"])
def test_the_files_follow_the_compose_specification(name: str, secrets: dict[str, str]) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(interpolate(text, secrets)))


def test_the_schema_refuses_a_wrong_key(compose: dict[str, Any]) -> None:
    compose["services"]["database"]["helthcheck"] = {}
    with pytest.raises(jsonschema.ValidationError, match="helthcheck"):
        jsonschema.Draft202012Validator(schema()).validate(compose)


def test_aku_init_makes_every_variable_that_is_required(secrets: dict[str, str]) -> None:
    required = set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert required <= set(secrets)
    assert all(re.fullmatch(r"[\w@.-]+", secrets[name]) for name in required), "values that an env file need not quote"
    for name in required:
        with pytest.raises(KeyError, match=name):
            interpolate(TEXT, {**secrets, name: ""})


def test_no_secret_stands_in_the_file(secrets: dict[str, str]) -> None:
    names = "|".join([*secrets, "POSTGRE_PASSWORD"])
    given = re.findall(rf"^ +({names}): (.*)$", TEXT, re.MULTILINE)
    assert {"SECRET_KEY", "POSTGRE_PASSWORD", "LABEL_STUDIO_PASSWORD"} <= {name for name, _ in given}
    for name, value in given:
        source = "POSTGRES_PASSWORD" if name == "POSTGRE_PASSWORD" else name
        assert value.startswith(f"${{{source}:?")


def test_no_secret_stands_in_a_command(services: dict[str, Any], secrets: dict[str, str]) -> None:
    commands = json.dumps([[s.get("command"), s.get("entrypoint"), s.get("healthcheck")] for s in services.values()])
    hidden = {k: v for k, v in secrets.items() if k not in ("LABEL_STUDIO_USERNAME", "BACKEND_USER")}
    assert not [name for name, value in hidden.items() if value in commands]


def test_secrets_go_only_where_they_are_needed(services: dict[str, Any]) -> None:
    def holds(name: str) -> set[str]:
        return {s for s in services if name in (services[s].get("environment") or {})}

    assert holds("BACKEND_PASSWORD") == holds("WEBHOOK_SECRET") == holds("PSEUDONYM_SALT") == {"workspace"}
    assert holds("LABEL_STUDIO_PASSWORD") == {"workspace", "tables", "label-studio"}
    assert holds("POSTGRES_PASSWORD") == {"database", "workspace"}
    assert holds("POSTGRE_PASSWORD") == {"tables", "label-studio", "aku"}


def test_one_port_is_published_and_on_loopback(services: dict[str, Any], secrets: dict[str, str]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"label-studio": ["127.0.0.1:8080:8080"]}
    wide = yaml.safe_load(interpolate(TEXT, {**secrets, "AKU_BIND": "192.0.2.7", "AKU_PORT": "80"}))["services"]
    assert wide["label-studio"]["ports"] == ["192.0.2.7:80:8080"]
    assert all("network_mode" not in s or s["network_mode"] == "none" for s in services.values())
    assert {name for name, s in services.items() if "outside" in s.get("networks", [])} == {"label-studio", "aku"}


def test_every_service_is_watched_or_is_a_job(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name in JOBS | ON_DEMAND:
            assert service["restart"] == "no"
            assert "healthcheck" not in service
        else:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert services["aku"]["profiles"] == ["tools"]


def test_every_service_is_limited_and_hardened(services: dict[str, Any]) -> None:
    for service in services.values():
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "cap_add" not in service
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert int(service["user"].split(":")[0]) > 0
        assert not service.get("privileged")


def test_images_are_pinned_to_what_the_tests_run_with(services: dict[str, Any]) -> None:
    constraints = dict(
        line.split("==")
        for line in (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    assert services["label-studio"]["image"] == f"heartexlabs/label-studio:{constraints['label-studio']}"
    for service in services.values():
        assert re.fullmatch(r"[\w/-]+:\d+\.\d+(\.\d+)?(-\w+)?", service["image"])
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert services["backend"]["image"] == f"aku-dialogue-studio:{version[1]}"
    # pg_dump must not be older than the server.
    server = re.match(r"postgres:(\d+)", services["database"]["image"])
    assert server
    assert f"postgresql-client-{server[1]}" in (ROOT / "Dockerfile").read_text()


def test_dependencies_are_waited_for(services: dict[str, Any]) -> None:
    for service in services.values():
        for name, what in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if name in JOBS else "service_healthy"
            assert what["condition"] == wanted


def test_the_address_rule_is_the_networks_own(compose: dict[str, Any]) -> None:
    (pool,) = compose["networks"]["inside"]["ipam"]["config"]
    assert compose["networks"]["inside"]["internal"] is True
    given = compose["services"]["label-studio"]["environment"]
    assert given["USE_DEFAULT_BANNED_SUBNETS"] == "false"
    assert given["USER_ADDITIONAL_BANNED_SUBNETS"] == servers.banned_subnets(pool["subnet"])
    assert ipaddress.ip_network(pool["subnet"]).is_private


def test_label_studio_is_told_the_same_as_by_aku_up(services: dict[str, Any], tmp_path: Path) -> None:
    """Whatever `aku up` sets is set here too, with the same value unless it is an address, a path or a secret."""
    values = servers.ensure_secrets(Workspace(tmp_path), "aku@studio.local")
    local = servers.label_studio_environment(Workspace(tmp_path), "http://127.0.0.1:8080", values)
    given = services["label-studio"]["environment"]
    own = {"LABEL_STUDIO_BASE_DATA_DIR", "USER_ADDITIONAL_BANNED_SUBNETS", "OMP_WAIT_POLICY"}
    for name in set(local) - own:
        assert name in given
        if local[name] not in values.values():
            assert given[name] == local[name], name


def copied(name: str = "Dockerfile") -> list[str]:
    """Paths that the Dockerfile copies out of the build context."""
    lines = re.findall(r"^COPY (.*) \S+$", (ROOT / name).read_text(), re.MULTILINE)
    return [path for line in lines for path in line.split()]


def test_the_image_holds_all_that_the_code_reads(tmp_path: Path) -> None:
    """The build context, laid out as the Dockerfile does, is enough to run on."""
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    for path in copied():
        assert any(fnmatch.fnmatch(path.rstrip("/"), line[1:]) for line in ignored if line.startswith("!")), path
        source, target = ROOT / path.rstrip("/"), tmp_path / path.rstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "import dialogue, aku.provision, aku.demo, ml_backend.server, aku.commands\n"
        "assert dialogue.__file__.startswith(sys.argv[1]), dialogue.__file__\n"
        "from dialogue import label_studio, load_taxonomy, read_dialogues\n"
        "assert label_studio.labeling_config(load_taxonomy()) and aku.provision.guide_html()\n"
        "assert len(read_dialogues(aku.demo.STARTER)) == 100 and aku.demo.CONTEXTS.exists()"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_init_takes_a_containers_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND_PASSWORD", "from outside")
    runner = CliRunner()
    assert runner.invoke(app, ["--home", str(tmp_path), "init"]).exit_code == 0
    made = Workspace(tmp_path).read_secrets()
    assert made["BACKEND_PASSWORD"] != "from outside"
    assert runner.invoke(app, ["--home", str(tmp_path), "init", "--from-environment"]).exit_code == 0
    assert Workspace(tmp_path).read_secrets() == {**made, "BACKEND_PASSWORD": "from outside"}


def test_provisioning_says_which_server_is_missing(tmp_path: Path) -> None:
    servers.ensure_secrets(Workspace(tmp_path), "a@b")
    arguments = ["--label-studio", "http://127.0.0.1:9", "--backend", "http://127.0.0.1:9", "--wait", "0"]
    result = CliRunner().invoke(app, ["--home", str(tmp_path), "provision", *arguments])
    assert "Label Studio does not answer at http://127.0.0.1:9" in str(result.exception)

"""The services of docker-compose.yml as plain processes: the same commands and environment, other addresses.

For tests and benchmarks on machines without a Docker engine.  What a container's image would do by itself is done
here: PostgreSQL's `initdb`, and the paths inside the images are replaced by those on this machine.  Needs
PostgreSQL's server programs (Debian: `postgresql`) and `pyuwsgi`, which the Label Studio image has inside.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from aku import servers
from aku.settings import write_default_settings
from dialogue import Workspace, files

ROOT = Path(__file__).parent.parent
COMPOSE = ROOT / "docker-compose.yml"
BIN = Path(sys.executable).parent


def postgres_programs() -> Path | None:
    """Folder of the newest PostgreSQL server programs on this machine, if there are any."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    there = shutil.which("initdb")
    return Path(there).resolve().parent if there else None


def interpolate(text: str, values: Mapping[str, str]) -> str:
    """Replace `${NAME}`, `${NAME:-default}` and `${NAME:?message}` as Docker Compose does, innermost first."""
    pattern = re.compile(r"\$\{(\w+)(?::([-?])([^${}]*))?\}")

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if values.get(name):
            return str(values[name])
        if kind == "?":
            raise KeyError(f"{name} is not set: {rest}")
        return rest or ""

    while (replaced := pattern.sub(value, text)) != text:
        text = replaced
    return text


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Team:
    """PostgreSQL, Label Studio and the ML backend as docker-compose.yml starts them, on free ports of 127.0.0.1."""

    def __init__(self, folder: Path, overrides: Mapping[str, str] | None = None, settings: str = "") -> None:
        """Prepare; nothing runs yet.  `overrides` stand for variables beside the env file, such as AKU_PROCESSES."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.workspace = Workspace(folder / "workspace")
        write_default_settings(self.workspace)
        if settings:
            self.workspace.settings.write_text(settings, encoding="utf-8")
        self.secrets = servers.ensure_secrets(self.workspace, "aku@studio.local")
        self.ports = {name: free_port() for name in ("database", "label-studio", "backend")}
        self.url, self.backend_url = self.address("label-studio"), self.address("backend")
        values = {**self.secrets, "AKU_URL": self.url, "AKU_PROCESSES": "2", **(overrides or {})}
        self.services: dict[str, Any] = yaml.safe_load(interpolate(COMPOSE.read_text(encoding="utf-8"), values))[
            "services"
        ]
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # PostgreSQL refuses to run as root, and an unprivileged user can not enter a private folder of root's.
        self.database_folder = Path(tempfile.mkdtemp(prefix="aku-postgres-"))
        self.user = "postgres" if os.getuid() == 0 else None

    def address(self, service: str) -> str:
        """Where a service listens here."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def environment(self, service: str) -> dict[str, str]:
        """The service's environment from the compose file, with this machine's addresses and paths."""
        home = self.folder / "home" / service
        home.mkdir(parents=True, exist_ok=True)
        given = {
            key: self._here(str(value)) for key, value in (self.services[service].get("environment") or {}).items()
        }
        if "HOME" in given:
            given["HOME"] = str(home)
        if given.get("POSTGRE_PORT"):
            given["POSTGRE_PORT"] = str(self.ports["database"])
        if "USER_ADDITIONAL_BANNED_SUBNETS" in given:
            given["USER_ADDITIONAL_BANNED_SUBNETS"] = servers.banned_subnets("127.0.0.0/8")
        kept = {key: os.environ[key] for key in ("LANG", "OMP_NUM_THREADS") if key in os.environ}
        path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
        base = {"PATH": path, "HOME": str(home), "OMP_WAIT_POLICY": "PASSIVE", "AKU_HOME": str(self.workspace.home)}
        return {**base, **kept, **given}

    def command(self, service: str) -> list[str]:
        """The service's command from the compose file, with this machine's addresses and paths."""
        words = [*self.services[service].get("entrypoint", []), *self.services[service]["command"]]
        words = [self._here(str(word)) for word in words]
        if service == "backend":
            words = ["127.0.0.1" if word == "0.0.0.0" else word for word in words]  # noqa: S104 - it is what we replace
            words = [str(self.ports["backend"]) if word == "9090" else word for word in words]
        return words

    def _here(self, text: str) -> str:
        code = importlib.util.find_spec("label_studio")
        assert code is not None
        assert code.origin is not None
        places = {
            "http://label-studio:8080": self.url,
            "http://backend:9090": self.backend_url,
            "0.0.0.0:8080": f"127.0.0.1:{self.ports['label-studio']}",
            "/label-studio/label_studio": str(Path(code.origin).parent),
            "/label-studio/data": str(self.folder / "label-studio"),
            "/etc/aku/uwsgi.ini": str(ROOT / "docker" / "uwsgi.ini"),
            "/tmp/alive": str(self.folder / "alive"),  # noqa: S108 - a path inside a container
        }
        for there, here in places.items():
            text = text.replace(there, here)
        return "127.0.0.1" if text == "database" else text

    # -- running

    def run(self, service: str, *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a job to its end; `more` replaces its command after the entry point."""
        command = [*self.services[service]["entrypoint"], *more] if more else self.command(service)
        result = subprocess.run(
            command, env=self.environment(service), capture_output=True, text=True, timeout=600, check=False
        )
        assert not check or result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result

    def start(self, service: str) -> None:
        """Start a service and wait until it is healthy."""
        self.begin(service)
        self.wait(service)

    def begin(self, service: str) -> None:
        """Start a service's process."""
        command, options = self.command(service), {}
        if service == "database":
            command, options = self._database_command(), {"user": self.user} if self.user else {}
        with self.log(service).open("ab") as log:
            self.processes[service] = subprocess.Popen(
                command,
                env=self.environment(service),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,  # type: ignore[call-overload]
            )

    def wait(self, service: str, seconds: float = 300) -> None:
        """Wait until the service's health check passes."""
        checks: dict[str, Callable[[], bool]] = {
            "database": self._database_ready,
            "label-studio": lambda: servers.healthy(f"{self.url}/health"),
            "backend": lambda: servers.healthy(f"{self.backend_url}/health"),
            "marks": (self.folder / "alive").exists,
        }
        end = time.monotonic() + seconds
        while not checks[service]():
            assert self.processes[service].poll() is None, f"{service} ended: {self.log(service).read_text()[-3000:]}"
            assert time.monotonic() < end, f"{service} does not come up: {self.log(service).read_text()[-3000:]}"
            time.sleep(0.1)

    def stop(self, service: str, sign: signal.Signals = signal.SIGTERM) -> None:
        """End a service as Docker does, or with SIGKILL kill every process of it at once; returns when all are gone."""
        process = self.processes.pop(service)
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        if sign == signal.SIGKILL:
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        else:
            # What `STOPSIGNAL` of the PostgreSQL image says: end the sessions, then stop.
            process.send_signal(signal.SIGINT if service == "database" else sign)
        try:
            process.wait(60)
        finally:
            for member in psutil.wait_procs(family, timeout=10)[1]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()

    def up(self) -> Team:
        """What `docker compose up --wait` does, in the order of `depends_on`, with as much at once as it allows."""
        self.make_database()
        self.start("database")
        self.run("workspace")
        self.begin("backend")
        self.run("tables")
        self.start("label-studio")
        self.wait("backend")
        self.run("provision")
        self.start("marks")
        return self

    def down(self) -> None:
        """Stop everything, in the opposite order, and remove the database."""
        for service in reversed(list(self.processes)):
            self.stop(service)
        shutil.rmtree(self.database_folder, ignore_errors=True)

    def log(self, service: str) -> Path:
        """A service's output."""
        return self.folder / f"{service}.log"

    def use_runserver(self) -> None:
        """Serve Label Studio as `label-studio start` does instead, to compare."""
        self.stop("label-studio")
        command = ["label-studio", "start", "--no-browser", "--internal-host", "127.0.0.1", "--host", self.url]
        self.services["label-studio"]["command"] = [*command, "--port", str(self.ports["label-studio"])]
        self.services["label-studio"]["environment"].pop("DJANGO_SETTINGS_MODULE")
        self.start("label-studio")

    @property
    def facts(self) -> dict[str, Any]:
        """What provisioning noted: ids of project and backend, addresses."""
        return dict(files.read_json(self.workspace.state / "studio.json"))

    # -- what the PostgreSQL image does

    def make_database(self) -> None:
        """`initdb` with the image's variables, and the database they name."""
        environment = self.environment("database")
        programs = postgres_programs()
        assert programs is not None
        folder = self.database_folder
        (folder / "password").write_text(environment["POSTGRES_PASSWORD"], encoding="utf-8")
        if self.user:
            for path in (folder, folder / "password"):
                shutil.chown(path, self.user, self.user)
        options: dict[str, Any] = {"user": self.user, "cwd": "/"} if self.user else {"cwd": "/"}
        arguments = [f"--username={environment['POSTGRES_USER']}", f"--pwfile={folder / 'password'}"]
        arguments += [*environment["POSTGRES_INITDB_ARGS"].split(), "--encoding=UTF8", f"--pgdata={folder / 'data'}"]
        subprocess.run([programs / "initdb", *arguments], check=True, capture_output=True, **options)
        (folder / "password").unlink()
        self.start("database")
        self._sql(f'CREATE DATABASE "{environment["POSTGRES_DB"]}"')
        self.stop("database")

    def _database_command(self) -> list[str]:
        programs = postgres_programs()
        assert programs is not None
        _, *options = self.services["database"]["command"]
        here = ["-D", self.database_folder / "data", "-k", self.database_folder, "-p", self.ports["database"]]
        here += ["-c", "listen_addresses=127.0.0.1"]
        return [str(word) for word in (programs / "postgres", *here, *options)]

    def _database_ready(self) -> bool:
        programs = postgres_programs()
        assert programs is not None
        command = [programs / "pg_isready", "--host=127.0.0.1", f"--port={self.ports['database']}"]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _sql(self, statement: str) -> None:
        import psycopg

        environment = self.environment("database")
        with psycopg.connect(
            host="127.0.0.1",
            port=self.ports["database"],
            dbname="postgres",
            user=environment["POSTGRES_USER"],
            password=environment["POSTGRES_PASSWORD"],
            autocommit=True,
        ) as connection:
            connection.execute(statement.encode())


@contextlib.contextmanager
def running(overrides: Mapping[str, str] | None = None, settings: str = "") -> Iterator[Team]:
    """A team's studio in a folder of its own, stopped and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="aku-team-") as folder:
        team = Team(Path(folder), overrides, settings)
        try:
            yield team.up()
        finally:
            team.down()

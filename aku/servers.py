"""Starting, watching and stopping the two servers of a local studio: Label Studio and the ML backend."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx

from dialogue import files
from dialogue.errors import AkuError, BackendError, LabelStudioError
from dialogue.settings import Workspace

_RESERVED = (
    "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
    "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 "
    "::/128 ::1/128 ::ffff:0:0/96 ::ffff:0:0:0/96 64:ff9b::/96 64:ff9b:1::/48 100::/64 2001::/32 2001:20::/28 "
    "2001:db8::/32 2002::/16 fc00::/7 fe80::/10 ff00::/8"
).split()


def banned_subnets(allowed: str = "127.0.0.0/8") -> str:
    """Every private and reserved range but the one that the ML backend is on, comma-separated.

    Label Studio refuses backends on local addresses.  Its switch for that opens all of them; this
    list opens one, so cloud metadata and other machines stay out of reach.  A reserved range that
    merely contains the allowed one (172.16.0.0/12 around a compose network) is written without it.
    """
    hole = ipaddress.ip_network(allowed)
    ranges: list[str] = []
    for text in _RESERVED:
        network = ipaddress.ip_network(text)
        if network.version != hole.version or not network.overlaps(hole):
            ranges.append(text)
        elif isinstance(network, ipaddress.IPv4Network) and isinstance(hole, ipaddress.IPv4Network):
            ranges += [str(n) for n in network.address_exclude(hole)] if hole.subnet_of(network) else []
    return ",".join(ranges)


def ensure_secrets(workspace: Workspace, email: str, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the workspace's passwords and tokens, making those that are missing (file mode 0600).

    Where `given` (a container's environment) names one of them, it replaces what the file says.
    """
    have = workspace.read_secrets()
    made = {
        "LABEL_STUDIO_USERNAME": email,
        "LABEL_STUDIO_PASSWORD": secrets.token_urlsafe(12),
        "LABEL_STUDIO_USER_TOKEN": secrets.token_hex(20),
        "SECRET_KEY": secrets.token_urlsafe(40),
        "BACKEND_USER": "label-studio",
        "BACKEND_PASSWORD": secrets.token_urlsafe(18),
        "WEBHOOK_SECRET": secrets.token_urlsafe(18),
        "PSEUDONYM_SALT": secrets.token_hex(16),
        "POSTGRES_PASSWORD": secrets.token_urlsafe(24),  # for docker-compose.yml; `aku up` uses SQLite
    }
    complete = {**made, **have, **{key: given[key] for key in made if given and given.get(key)}}
    if complete != have:
        workspace.write_secrets(complete)
    return complete


def label_studio_environment(workspace: Workspace, url: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables with which Label Studio starts."""
    return {
        "LABEL_STUDIO_BASE_DATA_DIR": str(workspace.home / "label-studio"),
        "LABEL_STUDIO_HOST": url,
        "LABEL_STUDIO_USERNAME": values["LABEL_STUDIO_USERNAME"],
        "LABEL_STUDIO_PASSWORD": values["LABEL_STUDIO_PASSWORD"],
        "LABEL_STUDIO_USER_TOKEN": values["LABEL_STUDIO_USER_TOKEN"],
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "SECRET_KEY": values["SECRET_KEY"],
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "USER_ADDITIONAL_BANNED_SUBNETS": banned_subnets(),
        # Label Studio then checks every prediction against the labelling configuration.
        "fflag_feat_utc_210_prediction_validation_15082025": "true",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "LATEST_VERSION_CHECK": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


class Server:
    """One child process in its own group, with a log file and a health check."""

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str], log: Path, health: str) -> None:
        """Start the process; its output goes to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        self.name, self.log, self.health = name, log, health
        with log.open("ab") as handle:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=handle,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, error: type[AkuError], seconds: float, tick: Callable[[], None] | None = None) -> None:
        """Wait until the health check answers; raises `error` if the process ends or time runs out."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise error(f"{self.name} stopped while starting (exit {self.process.returncode}); see {self.log}.")
            if healthy(self.health):
                return
            if tick:
                tick()
            time.sleep(0.3)
        self.stop()
        raise error(f"{self.name} did not come up within {seconds:.0f} s; see {self.log}.")

    def stop(self, seconds: float = 10) -> None:
        """Ask the process group to end, then make it; returns when it is gone."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue
            break


def healthy(url: str) -> bool:
    """Tell whether a GET on `url` answers 200 within a second."""
    try:
        return httpx.get(url, timeout=1, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def check_port(host: str, port: int, what: str, key: str, error: type[AkuError]) -> None:
    """Raise `error` if something else listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as cause:
            raise error(
                f"port {port} for {what} is taken by another program; stop it or set {key} in aku.toml."
            ) from cause


def start_label_studio(workspace: Workspace, host: str, port: int, values: Mapping[str, str]) -> Server:
    """Start Label Studio on SQLite inside the workspace; secrets travel in the environment only."""
    check_port(host, port, "Label Studio", "[studio] port", LabelStudioError)
    url = f"http://{host}:{port}"
    command = [str(Path(sys.executable).with_name("label-studio")), "start", "--no-browser", "--internal-host", host]
    command += ["--port", str(port), "--host", url, "--log-level", "ERROR"]
    environment = label_studio_environment(workspace, url, values)
    log = workspace.home / "logs" / "label-studio.log"
    return Server("Label Studio", command, environment, log, f"{url}/health")


def start_backend(workspace: Workspace, port: int) -> Server:
    """Start the ML backend on 127.0.0.1; it reads its secrets from the workspace."""
    check_port("127.0.0.1", port, "the ML backend", "[studio] backend_port", BackendError)
    command = [sys.executable, "-m", "ml_backend", "--home", str(workspace.home), "--port", str(port)]
    environment = {"OMP_WAIT_POLICY": "PASSIVE"}
    log = workspace.home / "logs" / "ml-backend.log"
    return Server("The ML backend", command, environment, log, f"http://127.0.0.1:{port}/health")


@contextlib.contextmanager
def exclusive(workspace: Workspace) -> Iterator[None]:
    """Hold the workspace's studio lock, so that two `aku up` do not fight over one database."""
    import fcntl

    path = workspace.state / "studio.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            facts = workspace.state / "studio.json"
            where = f" at {files.read_json(facts)['url']}" if facts.exists() else ""
            raise LabelStudioError(
                f"{workspace.home}: a studio already runs here{where}; use it, or stop it with Ctrl-C first."
            ) from error
        yield

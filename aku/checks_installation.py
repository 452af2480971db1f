"""Checks of the installation: Python, packages, the backend's library, the machine's disk and ports."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from aku.doctor import Check, Finding, fail, ok, warn
from aku.servers import healthy
from aku.settings import studio_settings
from dialogue import files
from dialogue.settings import Workspace

PRODUCT = "aku-dialogue-studio"
CONSTRAINTS = Path(__file__).parent.parent / "requirements" / "constraints.txt"
LEAST_FREE, GOOD_FREE = 1e9, 5e9
"""Bytes of disk below which nothing is safe, and below which a training run may fail."""


def python(workspace: Workspace) -> Iterator[Finding]:
    """The interpreter is one that the product is made for."""
    from packaging.specifiers import SpecifierSet

    found = ".".join(map(str, sys.version_info[:3]))
    needed = SpecifierSet(importlib.metadata.metadata(PRODUCT)["Requires-Python"])
    if found in needed:
        yield ok("python", f"Python {found}")
    else:
        yield fail("python", f"Python {found}; needed is {needed}.", "run `make install PYTHON=` with such a one.")


def packages(workspace: Workspace) -> Iterator[Finding]:
    """What the product needs is installed, in the versions that its tests passed with."""
    from packaging.requirements import Requirement

    try:
        needed = [Requirement(text) for text in importlib.metadata.requires(PRODUCT) or ()]
    except importlib.metadata.PackageNotFoundError:
        yield fail("packages", f"{PRODUCT} itself is not installed.", "run `make install`.")
        return
    tested = tested_versions(CONSTRAINTS)
    differing = []
    direct = [requirement for requirement in needed if requirement.marker is None]
    for requirement in direct:
        found = _installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            what = "is not installed" if found is None else f"is version {found}"
            yield fail("packages", f"{requirement.name} {what}; needed is {requirement}.", "run `make install`.")
        elif tested.get(_key(requirement.name), found).partition("+")[0] != found.partition("+")[0]:
            differing.append(f"{requirement.name} {found} (tested: {tested[_key(requirement.name)]})")
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        yield warn(
            "packages",
            f"other versions than the tested ones: {', '.join(differing[:3])}{more}.",
            "run `make install` in a new .venv to get the tested ones.",
        )
    else:
        yield ok("packages", f"{len(direct)} packages, Label Studio {_installed('label-studio')}")


def backend_library(workspace: Workspace) -> Iterator[Finding]:
    """label-studio-ml can be imported; it is installed by itself, without what it asks for."""
    try:
        import ml_backend.library  # noqa: F401 - to see whether it can be imported
    except ImportError as error:
        yield fail("label-studio-ml", f"can not be imported ({error}).", "run `make install`.")
    else:
        yield ok("label-studio-ml", f"{_installed('label-studio-ml')} can be imported")


def disk(workspace: Workspace) -> Iterator[Finding]:
    """There is room to write."""
    folder = workspace.home
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    message = f"{free / 1e9:.1f} GB free at {folder}"
    remedy = "free some space: old checkpoints (`aku checkpoints remove`), runs/, backups/."
    if free < LEAST_FREE:
        yield fail("disk", message, remedy)
    elif free < GOOD_FREE:
        yield warn("disk", message, remedy)
    else:
        yield ok("disk", message)


def ports(workspace: Workspace) -> Iterator[Finding]:
    """The two ports are free, or our own servers hold them."""
    settings = studio_settings(workspace)
    state = workspace.state / "studio.json"
    facts = files.read_json(state) if state.exists() else {}
    secrets = workspace.read_secrets()
    ours = {
        "Label Studio": lambda url: _is_our_label_studio(url, secrets.get("LABEL_STUDIO_USER_TOKEN", "")),
        "the ML backend": lambda url: _is_our_backend(url, secrets),
    }
    for name, key, port in (
        ("Label Studio", "port", settings.port),
        ("the ML backend", "backend_port", settings.backend_port),
    ):
        if not _listens(port):
            yield ok("ports", f"{port} for {name} is free")
        elif facts and ours[name](f"http://127.0.0.1:{port}"):
            yield ok("ports", f"{port} is held by {name} of this workspace")
        else:
            yield fail(
                "ports",
                f"{port} for {name} is taken by another program.",
                f"stop it, or set [studio] {key} in aku.toml.",
            )


def tested_versions(path: Path) -> dict[str, str]:
    """Read `name==version` lines; an absent file, as in an installed wheel, is empty."""
    if not path.exists():
        return {}
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.split("==", 1) for line in lines if "==" in line)
    return {_key(name): version.strip() for name, version in pairs}


def _key(name: str) -> str:
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_our_label_studio(url: str, token: str) -> bool:
    try:
        headers = {"Authorization": f"Token {token}"}
        return httpx.get(f"{url}/api/current-user/whoami", headers=headers, timeout=10, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _is_our_backend(url: str, secrets: dict[str, str]) -> bool:
    try:
        auth = (secrets.get("BACKEND_USER", ""), secrets.get("BACKEND_PASSWORD", ""))
        return (
            healthy(f"{url}/health") and httpx.get(f"{url}/versions", auth=auth, timeout=10, trust_env=False).is_success
        )
    except httpx.HTTPError:
        return False


CHECKS: tuple[tuple[str, Check], ...] = (
    ("python", python),
    ("packages", packages),
    ("label-studio-ml", backend_library),
    ("disk", disk),
    ("ports", ports),
)

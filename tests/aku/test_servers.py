"""The address rule, secrets and ports."""

from __future__ import annotations

import ipaddress
import socket
import stat

import pytest

from aku import servers
from dialogue import LabelStudioError, Workspace


def banned(address: str, allowed: str = "127.0.0.0/8") -> bool:
    networks = [ipaddress.ip_network(text) for text in servers.banned_subnets(allowed).split(",")]
    ip = ipaddress.ip_address(address)
    return any(ip in network for network in networks if network.version == ip.version)


MAPPED = ("::ffff:169.254.169.254", "::ffff:10.0.0.1")  # what a name server may give for an address of version 4


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "::1", "fe80::1", *MAPPED]
)
def test_everything_private_but_loopback_is_banned(address: str) -> None:
    assert banned(address)
    assert not banned("127.0.0.1")
    assert not banned("8.8.8.8")


def test_a_compose_network_opens_only_itself() -> None:
    assert not banned("172.28.5.2", "172.28.5.0/24")
    assert banned("172.28.6.2", "172.28.5.0/24")
    assert banned("127.0.0.1", "172.28.5.0/24")
    assert banned("169.254.169.254", "172.28.5.0/24")


def test_secrets_are_made_once(tmp_path) -> None:
    workspace = Workspace(tmp_path)
    first = servers.ensure_secrets(workspace, "a@b")
    assert servers.ensure_secrets(workspace, "a@b") == first
    assert stat.S_IMODE(workspace.secrets.stat().st_mode) == 0o600
    assert len(first["LABEL_STUDIO_USER_TOKEN"]) == 40


def test_an_occupied_port_is_named(tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(LabelStudioError, match=rf"port {port} .* taken"):
            servers.start_label_studio(Workspace(tmp_path), "127.0.0.1", port, {})


def test_two_studios_do_not_share_a_workspace(tmp_path) -> None:
    workspace = Workspace(tmp_path)
    with (
        servers.exclusive(workspace),
        pytest.raises(LabelStudioError, match="already runs"),
        servers.exclusive(workspace),
    ):
        pass


def test_a_server_that_dies_is_reported_with_its_log(tmp_path) -> None:
    import sys

    log = tmp_path / "x.log"
    server = servers.Server("X", [sys.executable, "-c", "raise SystemExit(3)"], {}, log, "http://127.0.0.1:9/health")
    with pytest.raises(LabelStudioError, match=r"exit 3.*x\.log"):
        server.wait(LabelStudioError, 20)

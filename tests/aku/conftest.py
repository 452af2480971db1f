"""Fixtures of the backup and restore tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import full_workspace

from dialogue import Workspace

HOSTED = "DJANGO_DB POSTGRE_HOST POSTGRE_PORT POSTGRE_NAME POSTGRE_USER POSTGRE_PASSWORD".split()


@pytest.fixture
def no_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what says that Label Studio uses PostgreSQL."""
    for name in HOSTED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def workspace(no_postgres: None, tmp_path: Path) -> Workspace:
    """A workspace with something of everything."""
    return full_workspace(tmp_path / "home")

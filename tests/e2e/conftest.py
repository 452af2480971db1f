"""Browser helpers for the end-to-end tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = (
    "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update "
    "--disable-sync --no-first-run"
).split()


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    """A headless Chromium for the whole run."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        instance = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield instance
        instance.close()


@pytest.fixture(scope="session")
def team() -> Iterator[Any]:
    """PostgreSQL, Label Studio on it and the ML backend, as docker-compose.yml has them, for the whole run.

    Without PostgreSQL's server programs the tests that need it are skipped, except under CI, where that is a failure.
    """
    from benchmarks import load
    from benchmarks.team import postgres_programs, running

    if postgres_programs() is None:
        message = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with running(settings=load.SETTINGS) as started:
        load.open_gate(started)
        yield started

"""Settings sections are typed, unknown keys are refused, secrets are private."""

from __future__ import annotations

import dataclasses
import stat
import tomllib
from typing import Literal

import pytest

from dialogue import SettingsError, Workspace, load_section
from dialogue.settings import document_section, setting


@dataclasses.dataclass(frozen=True)
class Section:
    rate: float = setting(0.5, "A share.")
    count: int = setting(3, "How many.")
    mode: Literal["a", "b"] = setting("a", "Which.")
    names: tuple[str, ...] = setting(("x",), "Names.")

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative.")


def write(path, text: str):
    path.write_text(text, encoding="utf-8")
    return path


def test_values_and_defaults(tmp_path) -> None:
    path = write(tmp_path / "aku.toml", '[s]\nrate = 1\nnames = ["p", "q"]\n')
    assert load_section(path, "s", Section) == Section(1.0, 3, "a", ("p", "q"))
    assert load_section(tmp_path / "none.toml", "s", Section) == Section()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[s]\nrat = 1", "no key 'rat'"),
        ("[s]\nrate = true", "should be a number"),
        ("[s]\ncount = 1.5", "a whole number"),
        ('[s]\nmode = "c"', "one of 'a', 'b'"),
        ("[s]\ncount = -1", "must not be negative"),
        ("[s", "not valid TOML"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, text: str, words: str) -> None:
    path = write(tmp_path / "aku.toml", text)
    with pytest.raises(SettingsError, match=words) as caught:
        load_section(path, "s", Section)
    assert str(path) in str(caught.value)


def test_documented_section_is_the_default_when_uncommented(tmp_path) -> None:
    text = document_section("s", Section, "About s.")
    assert tomllib.loads(text) == {"s": {}}
    uncommented = "\n".join(line.removeprefix("# ") for line in text.splitlines() if " = " in line)
    path = write(tmp_path / "aku.toml", "[s]\n" + uncommented)
    assert load_section(path, "s", Section) == Section()


def test_secrets_are_private_and_survive(tmp_path) -> None:
    workspace = Workspace(tmp_path)
    workspace.write_secrets({"A": "x=y", "B": "z"})
    assert stat.S_IMODE(workspace.secrets.stat().st_mode) == 0o600
    assert workspace.read_secrets() == {"A": "x=y", "B": "z"}

"""The workspace folder, and typed sections of its `aku.toml`.

Each room owns a frozen dataclass for its section, every field with a `help` text in its metadata;
`load_section` fills it and refuses unknown keys, `document_section` writes it as commented TOML.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from dialogue.errors import SettingsError
from dialogue.files import atomic_open

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Workspace:
    """Everything the software writes lies under `home` (`AKU_HOME`, default `./workspace`)."""

    home: Path

    @classmethod
    def default(cls) -> Workspace:
        """Take `AKU_HOME`, else `./workspace`."""
        return cls(Path(os.environ.get("AKU_HOME") or "workspace").absolute())

    @property
    def settings(self) -> Path:
        """`aku.toml`."""
        return self.home / "aku.toml"

    @property
    def datasets(self) -> Path:
        """Data set versions, one folder each."""
        return self.home / "datasets"

    @property
    def checkpoints(self) -> Path:
        """Checkpoint registry."""
        return self.home / "checkpoints"

    @property
    def reports(self) -> Path:
        """Bias reports, one folder each."""
        return self.home / "reports"

    @property
    def secrets(self) -> Path:
        """`secrets.env`, mode 0600."""
        return self.home / "secrets.env"

    @property
    def state(self) -> Path:
        """Small machine-written facts: ids of the Label Studio project and backend, ports, journals."""
        return self.home / "state"

    @property
    def taxonomy(self) -> Path:
        """The user's own genre taxonomy, if any."""
        return self.home / "genres.toml"

    def read_secrets(self) -> dict[str, str]:
        """Read `secrets.env` as KEY=value lines; an absent file is empty."""
        if not self.secrets.exists():
            return {}
        lines = self.secrets.read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def write_secrets(self, secrets: Mapping[str, str]) -> None:
        """Replace `secrets.env` atomically, readable by its owner only."""
        with atomic_open(self.secrets, private=True) as handle:
            handle.write("# Passwords and tokens of this workspace. Keep this file to yourself.\n")
            handle.writelines(f"{key}={value}\n" for key, value in secrets.items())


def setting(default: Any, text: str) -> Any:
    """Declare a documented field of a settings section."""
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata={"help": text})
    return dataclasses.field(default=default, metadata={"help": text})


def load_section(path: Path, name: str, cls: type[T]) -> T:
    """Fill the settings dataclass `cls` from table `[name]` of a TOML file; absent file or table: defaults.

    Raises `SettingsError` for broken TOML, an unknown key, or a value of the wrong type.
    """
    if not path.exists():
        return cls()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get(name, {})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: not valid TOML ({error}); correct it.") from error
    hints = typing.get_type_hints(cls)
    for key, value in table.items():
        if key not in hints:
            known = ", ".join(hints)
            raise SettingsError(f"{path}: [{name}] has no key {key!r}; it knows {known}.")
        if not _fits(value, hints[key]):
            raise SettingsError(f"{path}: [{name}] {key} = {value!r} should be {_type_name(hints[key])}.")
    converted = {k: _converted(v, hints[k]) for k, v in table.items()}
    try:
        return cls(**converted)
    except ValueError as error:  # a section's own __post_init__ check
        raise SettingsError(f"{path}: [{name}] {error}") from error


def document_section(name: str, cls: type[Any], lead: str) -> str:
    """Write a section as TOML in which every key is explained and stands commented out at its default."""
    lines = [f"# {lead}", f"[{name}]"]
    for field in dataclasses.fields(cls):
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        lines.append(f"# {field.metadata.get('help', '')}")
        lines.append(f"# {field.name} = {_toml(default)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        value = list(value)
    return '""' if value is None else json.dumps(value, ensure_ascii=False)


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin in (list, tuple):
        inner = typing.get_args(hint)[0]
        return isinstance(value, list) and all(_fits(item, inner) for item in value)
    if origin is dict or hint is dict:
        return isinstance(value, dict)
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _converted(value: Any, hint: Any) -> Any:
    if hint is float:
        return float(value)
    return tuple(value) if typing.get_origin(hint) is tuple else value


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(hint)))
    return {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}.get(hint, str(hint))

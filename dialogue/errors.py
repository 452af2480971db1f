"""Errors that a user can cause.  Each message is one sentence: file, record, remedy."""

from __future__ import annotations


class AkuError(Exception):
    """Base of every error whose message is meant for the person at the keyboard.

    The command line prints the message alone, without a traceback, and exits with `exit_code`.
    """

    exit_code = 2


class RecordError(AkuError):
    """A dialogue, task or annotation breaks a rule of the canonical record.

    `rule` is a short stable name of the rule, for counting; the message names the record.
    """

    def __init__(self, rule: str, message: str) -> None:
        """Keep the rule's name beside the sentence."""
        super().__init__(message)
        self.rule = rule


class FileError(AkuError):
    """A file is missing, unreadable or not what its name promises."""


class SettingsError(AkuError):
    """`aku.toml`, the genre taxonomy or a command-line value makes no sense."""


class CheckpointError(AkuError):
    """A checkpoint or base-model directory can not be used."""


class LabelStudioError(AkuError):
    """Label Studio is down, refuses the token, or answers what it should not."""


class BackendError(AkuError):
    """The ML backend can not be started or reached."""

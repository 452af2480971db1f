"""One module of commands per room; each adds its own to the app with `register`."""

from aku.commands import draft, export, plan, report, train

COMMANDS = (plan, export, train, draft, report)

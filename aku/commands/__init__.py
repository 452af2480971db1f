"""One module of commands per room; each adds its own to the app with `register`."""

from aku.commands import cycle, deploy, draft, export, gate, maintain, openers, plan, report, studio, train

COMMANDS = (studio, openers, plan, export, train, gate, draft, report, cycle, deploy, maintain)

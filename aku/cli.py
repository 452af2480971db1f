"""The `aku` command.  Each room's commands live in one module of `aku.commands`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from aku.commands import COMMANDS
from aku.console import errors
from dialogue.errors import AkuError
from dialogue.settings import Workspace

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
for module in COMMANDS:
    module.register(app)


@app.callback()
def workspace(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Workspace folder (default: $AKU_HOME or ./workspace).")] = None,
) -> None:
    """Aku Dialogue Studio: write a small-talk data set with a model in the loop."""
    context.obj = Workspace(home.absolute()) if home else Workspace.default()


def main() -> None:
    """Run the command; a user's mistake becomes one sentence on stderr and a non-zero exit."""
    # Spinning OpenMP threads cost half the speed beside a busy Label Studio; read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = app(standalone_mode=False)
    except AkuError as error:
        errors.print(f"aku: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        errors.print("aku: stopped.")
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)

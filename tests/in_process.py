"""The command line in the test's own process: many calls, without a start for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from fleet_assets.cli import app


def fleet(*arguments: str | Path) -> Any:
    """fleet("keys", "list") gives what --json prints. Raises what the command raises."""
    ended = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)

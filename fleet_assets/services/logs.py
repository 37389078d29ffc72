"""Old logs, removed.

In: an installation. Out: what Dagster's runs printed longer ago than asked for is gone. The servers' own logs are rotated by
the supervisor.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator

from fleet_assets.services.home import Home

_DAY_S = 24 * 3600.0


def tidy(home: Home, *, older_than_days: float) -> Iterator[str]:
    """Removes captured output of runs, and leftovers of tasks in the scratch folder; yields a line per folder."""
    before_s = time.time() - older_than_days * _DAY_S
    # In the scratch folder only what tasks that were killed have left; Spark's own folder is in use.
    for parent, names in ((home.dagster_home / "logs", "*"), (home.scratch, "*-*")):
        for folder in sorted(parent.glob(names)):
            if folder.is_dir() and folder.stat().st_mtime < before_s:
                shutil.rmtree(folder)
                yield f"{folder.relative_to(home.root)}: removed"

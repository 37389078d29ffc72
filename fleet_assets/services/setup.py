"""What the servers need beside the virtual environment: `python -m fleet_assets.services.setup`.

In: nothing. Out: a Java runtime, the jars for Spark and a lakefs program, fetched or built once per user. Called again,
it finds all there and says so in a second.
"""

from __future__ import annotations

import sys

from fleet_assets.errors import FleetError
from fleet_assets.services import jars, java, lakefs


def main() -> int:
    """Exit code 1 and one line on standard error when something cannot be had."""
    try:
        program, what = java.find()
        print(f"java    {what}, {program}", flush=True)
        print(f"jars    {jars.folder(_say)}", flush=True)
        print(f"lakefs  {lakefs.program(_say)}", flush=True)
    except FleetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _say(sentence: str) -> None:
    print(f"        {sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

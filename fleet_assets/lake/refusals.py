"""What lakeFS refuses, and that it does not answer, as errors that callers tell apart.

In: status and body of an answer, or what went wrong on the way. Out: a FleetError.
"""

from __future__ import annotations

import json
from typing import Any

from fleet_assets.errors import FleetError


class LakeUnreachable(FleetError):
    """lakeFS did not answer for a while."""


class MergeConflict(FleetError):
    """Both sides changed the same object, or the target moved."""


class AlreadyExists(FleetError):
    """A repository, branch or tag of this name is there."""


class NotFound(FleetError):
    """No such branch, tag, commit or object."""


class NothingToCommit(FleetError):
    """The branch holds no change."""


def unreachable(url: str, what: str, cause: Exception) -> LakeUnreachable:
    return LakeUnreachable(
        f"lakeFS at {url} does not answer",
        where=f"{what}: {str(cause).splitlines()[0] if str(cause) else type(cause).__name__}",
        remedy="`fleet status` shows the servers, `fleet up` starts them.",
    )


def refusal(what: str, status: int | None, body: Any, reason: str | None) -> FleetError:
    """body: JSON with a message, as lakeFS answers; reason: of the status line, where it is not."""
    text = _message(body, reason)
    match status:
        case 404:
            return NotFound(f"lakeFS has no {what}", where=text)
        case 409 if "not unique" in text or "exists" in text:
            return AlreadyExists(f"There is a {what} already", where=text)
        case 409:
            return MergeConflict(f"Conflict at {what}", where=text)
        case 401 | 403:
            return FleetError(
                f"lakeFS refused access to {what}",
                where=text,
                remedy="Check the keys in FLEET_HOME/secrets.json; main takes merges only.",
            )
        case 412 if "hook" in text:
            return FleetError(
                f"The pre-merge action refused the {what}",
                where=next((line for line in text.splitlines() if "runtime error" in line), text).strip("* \t"),
                remedy="main takes what a transaction has audited, and nothing else.",
            )
        case 400 if "no changes" in text:
            return NothingToCommit(f"Nothing to commit on {what}")
        case _:
            return FleetError(f"lakeFS refused {what} with status {status}", where=text)


def _message(body: Any, reason: str | None) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(reason)

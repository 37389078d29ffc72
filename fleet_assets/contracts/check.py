"""What `fleet contracts check | diff | docs` do.

In: contract files, a git reference, a folder. Out: findings, changes, pages. Unlike loading, checking goes on after the
first mistake and asks the standard's JSON schema too.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from fleet_assets.contracts.compatibility import Change, Contract, changes, version_findings
from fleet_assets.contracts.document import ContractError, parse_document, read_document, standard_findings
from fleet_assets.contracts.generate import pages
from fleet_assets.contracts.loader import (
    FOLDER,
    check_sources,
    contract_files,
    load_tables,
    read_table,
    stream_from,
    table_from,
)
from fleet_assets.contracts.model import StreamContract, TableContract
from fleet_assets.contracts.shapes import contracts
from fleet_assets.errors import FleetError

PROJECT = FOLDER.parents[1]
DOCS = PROJECT / "docs" / "reference"


@dataclass(frozen=True)
class Difference:
    """since: the git reference, None when nothing was released. added: contracts that are new.

    findings: versions that do not tell what changed. unreadable: files of then that today's rules refuse; they cannot
    be compared.
    """

    since: str | None
    changes: list[Change] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    findings: list[ContractError] = field(default_factory=list)
    unreadable: list[ContractError] = field(default_factory=list)


def check(paths: Sequence[Path] = ()) -> list[ContractError]:
    """Every mistake in the files (without paths: in all contracts of the package), in order of files and lines."""
    files = list(paths) or [path for folder in ("tables", "context", "streams") for path in contract_files(folder)]
    findings: list[ContractError] = []
    streams: list[StreamContract] = []
    tables = _readable()
    for path in files:
        try:
            document = read_document(path)
            found = standard_findings(document)
            findings += found
            is_table = "." in str(document.value.get("name", ""))
            contract = table_from(document) if is_table else stream_from(document, tables)
            # Where columns come from can be told when all tables can be read.
            if isinstance(contract, TableContract) and len(tables) == len(contract_files("tables")):
                check_sources(document, tables)
        except ContractError as error:
            # One mistake can break the standard and our own rules: said once is enough.
            if not any(known.path == error.path and known.line == error.line for known in findings):
                findings.append(error)
            continue
        if isinstance(contract, StreamContract):
            streams.append(contract)
    return findings + _ambiguous(streams)


def _readable() -> dict[str, TableContract]:
    """The package's tables that can be read: a mistake in one hides no mistake of a stream that goes to another."""
    tables = {}
    for path in contract_files("tables"):
        with contextlib.suppress(ContractError):
            table = read_table(path)
            tables[table.name] = table
    return tables


def _ambiguous(streams: list[StreamContract]) -> list[ContractError]:
    """Two streams of one kind that claim the same topic: which one a record belongs to would depend on their order."""
    findings = []
    for index, first in enumerate(streams):
        for second in streams[index + 1 :]:
            shared = set(first.topics) & set(second.topics)
            claimed = shared or {topic for topic in _spelled(second) if _takes(first, topic)}
            if first.kind == second.kind and claimed:
                what = f"{second.path.name}: topic {sorted(claimed)[0]} belongs to {first.name} already"
                findings.append(ContractError(what, where="topics", path=second.path, remedy="Tell the topics apart."))
    return findings


def _spelled(stream: StreamContract) -> set[str]:
    return {"/" + stream.name, "/" + stream.name.replace("_", "/")}


def _takes(stream: StreamContract, topic: str) -> bool:
    return any(re.fullmatch(pattern, topic) for pattern in stream.topics)


def diff(ref: str | None = None, project: Path = PROJECT) -> Difference:
    """What changed in the package's contracts since a git reference (default: the last release tag)."""
    since = ref or last_release(project)
    new = contracts()
    if since is None:
        return Difference(None, added=sorted(new))
    old, unreadable = contracts_at(since, project)
    found = [change for name in old if name in new for change in changes(old[name], new[name])]
    skipped = {_contract_name(error) for error in unreadable}
    added = sorted(new.keys() - old.keys() - skipped)
    return Difference(since, found, added, version_findings(old, new), unreadable)


def _contract_name(error: ContractError) -> str:
    return error.path.name.removesuffix(".odcs.yaml") if error.path else ""


def last_release(project: Path = PROJECT) -> str | None:
    """The newest tag vMAJOR.MINOR.PATCH that the working tree descends from; None when there is none, or no git."""
    try:
        tags = _git(project, "tag", "--list", "v[0-9]*", "--merged", "HEAD", "--sort=-v:refname")
    except FleetError:
        return None
    return next((tag for tag in tags.split() if re.fullmatch(r"v\d+\.\d+\.\d+", tag)), None)


def contracts_at(ref: str, project: Path = PROJECT) -> tuple[dict[str, Contract], list[ContractError]]:
    """All contracts of the project at a git reference by name, and those that today's rules refuse.

    Raises FleetError for an unknown reference.
    """
    commit = _git(project, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}").strip()
    names = _git(project, "ls-tree", "-r", "--name-only", "-z", commit, "--", "fleet_assets/contracts").split("\0")
    paths = [PurePosixPath(name) for name in names if name.endswith(".odcs.yaml")]
    tables: dict[str, TableContract] = {}
    streams: dict[str, StreamContract] = {}
    unreadable = []
    # Tables first: streams speak of their columns.
    for path in sorted(paths, key=lambda path: path.parent.name == "streams"):
        try:
            document = parse_document(_git(project, "show", f"{commit}:{path}"), Path(path))
            if path.parent.name != "streams":
                table = table_from(document)
                tables[table.name] = table
            else:
                stream = stream_from(document, {**load_tables(), **tables})
                streams[stream.name] = stream
        except ContractError as error:
            unreadable.append(error)
    return {**tables, **streams}, unreadable


def _git(project: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise FleetError("git is not installed", remedy="Install git to compare contracts.") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()
        raise FleetError(
            f"git {arguments[0]} failed", where=said[0] if said else None, remedy="Give a tag, a branch or a commit."
        ) from error
    return done.stdout


def write_docs(folder: Path = DOCS, of: Callable[[], Mapping[str, str]] = pages) -> list[str]:
    """Writes the pages that differ and removes those that are of nothing; gives their names. of: pages by name."""
    stale = stale_docs(folder, of)
    wanted = of()
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale:
        if name in wanted:
            (folder / name).write_text(wanted[name], encoding="utf-8")
        else:
            (folder / name).unlink()
    return stale


def docs_are_current(folder: Path = DOCS) -> bool:
    return not stale_docs(folder)


def stale_docs(folder: Path = DOCS, of: Callable[[], Mapping[str, str]] = pages) -> list[str]:
    """Pages that are missing, differ from what they should say, or are of nothing."""
    wanted = of()
    present = {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))

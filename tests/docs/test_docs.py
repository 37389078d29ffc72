"""README and docs/ are true: commands, options, targets, links, variables, names of files and tables."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main
from docs.examples import PROJECT, blocks

from fleet_assets.cli import app
from fleet_assets.contracts.check import stale_docs
from fleet_assets.contracts.loader import load_tables
from fleet_assets.curate.scenarios import scenario_slices
from fleet_assets.edge.floor import Floor
from fleet_assets.evaluate.gate_file import parse_gate
from fleet_assets.lake.query import rewrite
from fleet_assets.signing.keys import SigningKey
from fleet_assets.signing.roles import Roles

PAGES = [PROJECT / "README.md", PROJECT / "CHANGELOG.md", *sorted((PROJECT / "docs").glob("*.md"))]
ALL_PAGES = [*PAGES, *sorted((PROJECT / "docs").glob("*/*.md"))]
IMAGE_BYTES = 300_000
_SHELL = ("sh", "bash", "console")
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
# Names the supervisor gives its processes; nobody sets it.
_INTERNAL = {"FLEET_SERVER"}


def name_of(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()


def commands(program: str) -> Iterator[tuple[str, str]]:
    """(page, command line) wherever a page speaks of the program: in shell blocks, and in `...` in the text."""
    for page in PAGES:
        text = page.read_text()
        lines = [line for language, block in blocks(page) if language in _SHELL for line in block.splitlines()]
        lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
        for line in lines:
            line = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line.strip())
            if line.split(" ")[0] == program:
                yield name_of(page), line


def arguments(line: str) -> list[str]:
    """Words of a command line, without its comment."""
    return shlex.split(line, comments=True)[1:]


def parsed(words: list[str]) -> tuple[typer.core.TyperCommand | None, dict[str, Any], list[str]]:
    """(command, its options and arguments, words too many); None for the name of a group. Raises for a wrong option."""
    command: Any = typer.main.get_command(app)
    context = typer.Context(command)
    while isinstance(command, typer.core.TyperGroup):
        if not words or words[0].startswith("-"):
            return None, {}, []
        found = command.get_command(context, words[0])
        if found is None:
            return None, {}, words
        words, command, context = words[1:], found, typer.Context(found, parent=context)
    given, left, _ = command.make_parser(context).parse_args(words)
    return command, given, left


def test_commands_exist_with_their_options() -> None:
    lines = sorted(set(commands("fleet")))
    assert len(lines) > 30
    for page, line in lines:
        try:
            command, given, left = parsed([word for word in arguments(line) if word != "..."])
        except Exception as error:
            pytest.fail(f"{page}: {line}: {error}")
        assert left == [], f"{page}: {line}"
        if command is not None and command.name == "query" and str(given.get("sql")).startswith("SELECT"):
            rewrite(given["sql"], limit=1)


def test_pages_speak_of_every_command() -> None:
    named = {" ".join(arguments(line)) for _, line in commands("fleet")}
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        for full in [f"{name} {sub}" for sub in getattr(command, "commands", [])] or [name]:
            assert any(line.startswith(full) for line in named), f"no page speaks of `fleet {full}`"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for page, line in commands("make"):
        assert set(arguments(line)) <= targets, f"{page}: {line}"


def test_readme_states_the_test_command() -> None:
    assert any(line.split("#")[0].strip() == "make test" for _, line in commands("make"))


@cache
def anchors(page: Path) -> set[str]:
    """What headings of a page are linked by, as GitHub makes it."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ALL_PAGES, ids=name_of)
def test_links_and_pictures_resolve(page: Path) -> None:
    for picture, target in re.findall(r"(!?)\[[^\]]*\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{name_of(page)}: {target}"
        assert not anchor or anchor in anchors(file), f"{name_of(page)}: {target}"
        assert not picture or file.stat().st_size < IMAGE_BYTES


def sources() -> str:
    """Everything that could read a variable."""
    roots = [PROJECT / name for name in ("fleet_assets", "benchmarks", "infra", "tests", "Makefile", "dagster.yaml")]
    files = [file for root in roots for file in ([root] if root.is_file() else sorted(root.rglob("*")))]
    kinds = {".py", ".yaml", ".xml", ".conf", ".properties", ".txt", ""}
    here = Path(__file__).parent
    return "\n".join(
        file.read_text()
        for file in files
        if file.is_file() and file.suffix in kinds and "__pycache__" not in file.parts and here not in file.parents
    )


def test_variables_are_those_of_the_code() -> None:
    text = sources()
    prose = "\n".join(page.read_text() for page in PAGES if page.name != "extending.md")
    in_code = set(re.findall(r"\bFLEET_[A-Z_]+\b", text)) - _INTERNAL
    table = set(re.findall(_VARIABLE, (PROJECT / "docs" / "operations.md").read_text().rpartition("## Environment")[2]))
    assert in_code <= table, "document them in docs/operations.md"
    unknown = {name for name in re.findall(_VARIABLE, prose) if not re.search(rf"\b{name}\b", text)}
    assert unknown == set(), "no code reads them"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_tables_that_are_named_exist(page: Path) -> None:
    from docs.examples import example_files

    examples = {*example_files(), *example_files("features.md")}
    text = page.read_text()
    for path in re.findall(r"\b(?:fleet_assets|infra|tests|docs|benchmarks)/[\w./-]*\w", text):
        assert (PROJECT / path).exists() or path in examples, f"{name_of(page)}: {path}"
    for table in re.findall(r"`((?:ingest|synchronise|lake)\.[a-z_]+)`", text):
        assert table in load_tables(), f"{name_of(page)}: {table}"


def test_reference_is_current() -> None:
    assert stale_docs() == [], "run `make docs`"


def test_the_files_that_pages_show_are_taken(tmp_path: Path) -> None:
    """A gate, a roles file with a ceremony's keys, a vehicle's floor."""

    def shown(page: str, language: str) -> str:
        [text] = [text for told, text in blocks(PROJECT / "docs" / page) if told == language]
        return text

    gate = parse_gate(shown("gates.md", "yaml"), Path("full.yaml"), scenario_slices())
    assert (gate.rehearsals, gate.scenarios) == (("camera_missing",), ("crossing_pedestrian@1.0.0",))
    text = shown("releases.md", "toml")
    for holder in re.findall(r"^(\w+) = \"\w+\.pub\"", text, flags=re.MULTILINE):
        SigningKey.create(tmp_path / holder, "a passphrase for tests")
    (tmp_path / "roles.toml").write_text(text)
    roles = Roles.read(tmp_path / "roles.toml")
    assert (roles.roles["targets"].holders, roles.roles["root"].threshold) == (("cy", "dee", "eli"), 2)
    floor = Floor.from_document(json.loads(shown("releases.md", "json")), "the page")
    assert floor == Floor(demands=floor.demands)

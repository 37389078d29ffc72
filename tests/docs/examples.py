"""Examples of pages, put where the page says.

In: a page. Out: its code blocks by what their first line names, and a copy of the repository that has them.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Code blocks of a page: (language, text)."""
    return [(match["language"], match["text"]) for match in _BLOCK.finditer(page.read_text())]


def example_files(page: str = "extending.md", *, changes: bool = False) -> dict[str, str]:
    """Blocks that name their file in the first line: path -> text. changes: those in language diff, else all others."""
    found = {}
    for language, text in blocks(PROJECT / "docs" / page):
        first, _, rest = text.partition("\n")
        named = re.fullmatch(r"# ((?:fleet_assets|feature_repo)/\S+)", first)
        if named and (language == "diff") == changes:
            found[named[1]] = rest
    return found


def put(page: str, folder: Path) -> None:
    """Writes a page's examples into a copy of the repository; a file that is there is added to, or changed as a diff says."""
    for path, text in example_files(page).items():
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        with open(target, "a", encoding="utf-8") as file:
            file.write(text)
    for path, text in example_files(page, changes=True).items():
        for hunk in text.split("@@\n")[1:]:
            lines = hunk.splitlines(keepends=True)
            old, new = ("".join(line[1:] for line in lines if line[0] in kinds) for kinds in (" -", " +"))
            replace(folder / path, old, new)


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file}: {old}"
    file.write_text(text.replace(old, new))


def rule() -> str:
    """The example of a rule, as lines of a contract's quality list."""
    return next(text for language, text in blocks(PROJECT / "docs" / "extending.md") if "mostly: 0.5" in text)


def copy(folder: Path) -> None:
    """A copy of what a new definition touches; with what Numba has compiled, as far as it is finished."""
    for name in ("fleet_assets", "feature_repo", "infra", "docs"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("*.pyc", "*.pyc.*", "*.tmp.*"))
    (folder / "tests").mkdir()
    for name in ("dagster.yaml", "pyproject.toml", "tests/test_graph.py", "tests/graph.txt"):
        shutil.copy(PROJECT / name, folder / name)


def extended(folder: Path) -> Path:
    """A copy of the package with all examples; gives the folder to put on PYTHONPATH."""
    copy(folder)
    put("extending.md", folder)
    replace(folder / "fleet_assets/contracts/tables/ingest.gnss.odcs.yaml", "  quality:\n", f"  quality:\n{rule()}")
    definitions, dagster = folder / "fleet_assets/definitions.py", "\nimport dagster as dg\n"
    replace(definitions, "        *FEATURES,\n", "        *FEATURES,\n        top_speed,\n")
    replace(definitions, dagster, f"{dagster}from fleet_assets.curate.assets import top_speed\n")
    return folder

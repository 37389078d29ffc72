"""The examples of docs/extending.md, put where the page says.

In: the page. Out: its code blocks by what their first line names, and a copy of the package that has them.
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


def example_files() -> dict[str, str]:
    """Blocks of extending.md that name their file in the first line: path -> text."""
    found = {}
    for _, text in blocks(PROJECT / "docs" / "extending.md"):
        first, _, rest = text.partition("\n")
        if named := re.fullmatch(r"# (fleet_assets/\S+)", first):
            found[named[1]] = rest
    return found


def rule() -> str:
    """The example of a rule, as lines of a contract's quality list."""
    return next(text for language, text in blocks(PROJECT / "docs" / "extending.md") if "mostly: 0.5" in text)


def extended(folder: Path) -> Path:
    """A copy of the package with all examples; gives the folder to put on PYTHONPATH."""
    for name in ("fleet_assets", "infra", "docs"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dagster.yaml", "pyproject.toml"):
        shutil.copy(PROJECT / name, folder / name)
    for path, text in example_files().items():
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        with open(target, "a", encoding="utf-8") as file:  # a file that is there is added to
            file.write(text)
    contract = folder / "fleet_assets/contracts/tables/ingest.gnss.odcs.yaml"
    contract.write_text(contract.read_text().replace("  quality:\n", f"  quality:\n{rule()}", 1))
    definitions = folder / "fleet_assets/definitions.py"
    text = definitions.read_text()
    for old, new in (
        ("        *FEATURES,\n", "        *FEATURES,\n        top_speed,\n"),
        ("\nimport dagster as dg\n", "\nimport dagster as dg\nfrom fleet_assets.curate.assets import top_speed\n"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    definitions.write_text(text)
    return folder

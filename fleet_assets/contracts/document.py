"""A contract file as a tree that knows its lines.

In: the path of a YAML file. Out: a Node; what is wrong with it is a ContractError that names file, line, YAML path and
remedy. YAML features that hide what a file says (aliases, repeated keys) are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from fleet_assets.errors import FleetError

# The C parser is ten times as fast; a wheel without it still works.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SIZE_LIMIT_BYTES = 1 << 20
_KINDS: dict[type, str] = {dict: "a mapping", list: "a list", str: "text", bool: "true or false"}

Path_ = tuple[str | int, ...]  # of a value inside its file


class ContractError(FleetError):
    """A mistake in a contract file. path: the file; line: from 1; place: YAML path, such as schema[0].quality[2]."""

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        remedy: str | None = None,
        path: Path | None = None,
        line: int | None = None,
        place: str = "",
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.path = path
        self.line = line
        self.place = place


@dataclass(frozen=True)
class Node:
    """A value of the file, with the way to it. Reading what is not there, or of another kind, is a ContractError."""

    value: Any
    file: Path
    way: Path_
    lines: Mapping[Path_, int]

    @property
    def place(self) -> str:
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.way)
        return steps.lstrip(".") or "top level"

    def error(self, what: str, remedy: str) -> ContractError:
        """what: the mistake, such as `column 'speed': unknown type 'float16'`."""
        way = self.way
        while way not in self.lines:
            way = way[:-1]
        line = self.lines[way]
        return ContractError(
            f"{self.file.name}: {what}",
            where=f"line {line}, {self.place}",
            remedy=remedy,
            path=self.file,
            line=line,
            place=self.place,
        )

    def get(self, key: str) -> Node | None:
        """The value of a key; None when it is not there or null."""
        value = self.of(dict).get(key)
        return None if value is None else Node(value, self.file, (*self.way, key), self.lines)

    def __getitem__(self, key: str) -> Node:
        found = self.get(key)
        if found is None:
            raise self.error(f"{key!r} is missing", f"Add {key!r}.")
        return found

    def __iter__(self) -> Iterator[Node]:
        for index, value in enumerate(self.of(list)):
            yield Node(value, self.file, (*self.way, index), self.lines)

    def only(self, required: Sequence[str], optional: Sequence[str] = ()) -> None:
        """A mapping with all of the required entries, and none but the optional ones beside them."""
        for name in self.of(dict):
            if name not in (*required, *optional):
                known = ", ".join((*required, *optional))
                raise self.error(f"{name!r} is not known here", f"Remove it, or use one of {known}.")
        for name in required:
            self[name]

    def elements(self, key: str) -> list[Node]:
        """The elements of a list that may be missing."""
        found = self.get(key)
        return list(found) if found else []

    def of(self, kind: type) -> Any:
        """The value, which must be of the kind (a bool is no number)."""
        if not isinstance(self.value, kind) or (kind is not bool and isinstance(self.value, bool)):
            raise self.error(f"{self.value!r} is not {_KINDS[kind]}", f"Write {_KINDS[kind]} here.")
        return self.value

    @property
    def text(self) -> str:
        text: str = self.of(str)
        if not text.strip():
            raise self.error("empty text", "Say something here.")
        return text

    @property
    def number(self) -> float | int:
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise self.error(f"{self.value!r} is not a number", "Write a number here.")
        return self.value

    @property
    def positive(self) -> float | int:
        if not self.number > 0:
            raise self.error(f"{self.value!r} is not above 0", "Give a number above 0, or leave the entry out.")
        return self.number

    def one_of(self, values: tuple[str, ...]) -> str:
        if self.value not in values:
            raise self.error(f"{self.value!r} is not known here", f"Use one of {', '.join(values)}.")
        return str(self.value)


def read_document(path: Path) -> Node:
    """Parses one file. Raises ContractError for what is no readable YAML mapping."""
    try:
        if path.stat().st_size > _SIZE_LIMIT_BYTES:
            raise ContractError(f"{path.name}: over 1 MiB", path=path, remedy="A contract is a small text file.")
        return parse_document(path.read_text(encoding="utf-8"), path)
    except FileNotFoundError as error:
        raise ContractError(f"{path}: no such file", path=path, remedy="Give the path of a contract.") from error
    except UnicodeDecodeError as error:
        where = f"byte {error.start}"
        raise ContractError(f"{path.name}: not UTF-8", where=where, path=path, remedy="Save it as UTF-8.") from error


def parse_document(text: str, path: Path) -> Node:
    """Parses the text of a contract. path: only for error messages."""
    lines: dict[Path_, int] = {}
    loader = _LOADER(text)
    try:
        root = loader.get_single_node()
        value = _construct(loader, root, (), lines, set(), path) if root is not None else None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error)
        raise ContractError(
            f"{path.name}: no valid YAML: {problem}",
            where=f"line {line}",
            remedy="Check indentation, quotes and colons there.",
            path=path,
            line=line,
        ) from error
    finally:
        loader.dispose()
    lines.setdefault((), 1)
    node = Node(value, path, (), lines)
    node.of(dict)
    return node


def _construct(loader: Any, node: Any, way: Path_, lines: dict[Path_, int], seen: set[int], path: Path) -> Any:
    lines[way] = node.start_mark.line + 1
    if id(node) in seen:
        raise Node(None, path, way, lines).error("an alias", "Write the value out: a contract says what it means.")
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in mapping:
                lines[(*way, key)] = key_node.start_mark.line + 1
                raise Node(None, path, (*way, key), lines).error(f"{key!r} is there twice", "Remove one.")
            mapping[key] = _construct(loader, value_node, (*way, key), lines, seen, path)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, (*way, i), lines, seen, path) for i, item in enumerate(node.value)]
    return loader.construct_object(node)


def standard_findings(document: Node) -> list[ContractError]:
    """Where a document breaks the Open Data Contract Standard, one finding per place.

    The JSON schema is the one that the package open-data-contract-standard carries; the package's pydantic model
    accepts wrong files too. Validating all contracts takes half a second, so `fleet contracts check` and the tests do
    it, and loading does not.
    """
    found: dict[Path_, ContractError] = {}
    for error in sorted(_validator().iter_errors(document.value), key=lambda e: [str(s) for s in e.absolute_path]):
        place = Node(None, document.file, tuple(error.absolute_path), document.lines)
        # The schema is layered and says some things twice.
        error_here = place.error(f"breaks the standard (ODCS v3): {error.message[:200]}", "See the standard's schema.")
        found.setdefault(place.way, error_here)
    return list(found.values())


@lru_cache(maxsize=1)
def _validator() -> Any:
    from jsonschema.validators import validator_for

    text = (resources.files("open_data_contract_standard") / "schema.json").read_text(encoding="utf-8")
    schema = json.loads(text)
    return validator_for(schema)(schema)

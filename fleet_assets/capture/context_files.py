"""Files of context: what others know of the world around a drive, as CSV in one folder of the installation.

In: weather.csv, zones.csv, vehicles.csv, lanes.csv, from anyone. Out: rows that keep their contract
(fleet_assets/contracts/context), a count of those that do not, with reasons; or the error that makes a file useless. Nothing in a
file costs a drive anything.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from fleet_assets.capture.files import open_regular
from fleet_assets.contracts.loader import TableContract, load_context
from fleet_assets.contracts.rules import evaluate_rows
from fleet_assets.errors import FleetError

MAX_BYTES = 64 * 1024 * 1024
_MAX_ROW_BYTES = 64 * 1024
_BLOCK_BYTES = 1 << 20
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?\s*$"
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_REMEDY = "Correct it and put the whole file in its place in one step (write, then rename)."


@dataclass
class ContextFile:
    """rows: as the contract says. refused: reason -> (rows, number of the first one, from 1). error: the file cannot be used,
    and has no rows. sha256: empty when there is no file."""

    name: str
    rows: pa.Table
    sha256: str = ""
    content: bytes = b""
    refused: dict[str, tuple[int, int]] = field(default_factory=dict)
    error: FleetError | None = None

    @property
    def limits(self) -> dict[str, float]:
        return dict(load_context()[self.name].join_limits)


def file_names() -> dict[str, str]:
    """File by contract: context.weather -> weather.csv."""
    return {name: f"{name.removeprefix('context.')}.csv" for name in load_context()}


def read_all(folder: Path, names: Iterable[str] | None = None) -> dict[str, ContextFile]:
    """Files of context, by contract; all unless named. One that is not there has no rows and no error."""
    return {name: read(folder, name) for name in names or file_names()}


def read(folder: Path, name: str) -> ContextFile:
    """The file of one contract. Raises nothing for what is wrong with it."""
    contract = load_context()[name]
    result = ContextFile(name, contract.arrow_schema.empty_table())
    file = file_names()[name]
    if not os.path.lexists(folder / file):
        return result
    try:
        with open_regular(folder, file) as source:
            result.content = source.read(MAX_BYTES + 1)
        result.sha256 = hashlib.sha256(result.content).hexdigest()
        if len(result.content) > MAX_BYTES:
            raise FleetError(f"It is larger than {MAX_BYTES} bytes", remedy="Leave out what the fleet does not need.")
        rows = _parse(contract, result.content, result.refused)
        result.rows = _checked(contract, rows, result.refused)
    except FleetError as error:
        result.error = FleetError(f"{file}: {error.what}", where=error.where, remedy=error.remedy or _REMEDY)
    return result


def _parse(contract: TableContract, content: bytes, refused: dict[str, tuple[int, int]]) -> pa.Table:
    """Columns of the contract as text. Raises FleetError for what is no such CSV."""
    names = contract.arrow_schema.names
    _check_header(content, contract)

    def skip(row: pa_csv.InvalidRow) -> str:
        reason = f"the row has {row.actual_columns} fields; the header has {row.expected_columns}"
        count, first = refused.get(reason, (0, (row.number or 2) - 1))
        refused[reason] = (
            count + 1 + (row.text or "").strip("\n").count("\n"),
            first,
        )  # an open quote takes lines along
        return "skip"

    try:
        return pa_csv.read_csv(
            io.BytesIO(content),
            # One thread: only then are rows numbered.
            pa_csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
            pa_csv.ParseOptions(invalid_row_handler=skip),
            pa_csv.ConvertOptions(
                include_columns=names,
                include_missing_columns=True,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            ),
        )
    except pa.ArrowException as error:
        raise FleetError("It is no CSV in UTF-8", where=str(error).splitlines()[0][:200], remedy=_REMEDY) from error


def _check_header(content: bytes, contract: TableContract) -> None:
    line = content[:_MAX_ROW_BYTES].split(b"\n", 1)[0]
    try:
        header = next(csv.reader([line.decode("utf-8-sig").rstrip("\r")]), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise FleetError("Its first line is no header in UTF-8", where=str(error)[:200], remedy=_REMEDY) from error
    required = [column.name for column in contract.columns if column.required]
    if missing := [name for name in required if name not in header]:
        raise FleetError(
            f"Column {', '.join(missing)} is missing",
            where=f"first line: {line[:100]!a}",
            remedy=f"Columns: {', '.join(contract.arrow_schema.names)}.",
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise FleetError(f"Column {twice[0][:40]!a} is there twice", where="first line", remedy=_REMEDY)
    if max(map(len, content.split(b"\n")), default=0) > _MAX_ROW_BYTES:
        raise FleetError(f"A line has more than {_MAX_ROW_BYTES} bytes", remedy=_REMEDY)


def _checked(contract: TableContract, text: pa.Table, refused: dict[str, tuple[int, int]]) -> pa.Table:
    """Typed rows without those that break the contract. Raises FleetError when there are too many."""
    limit = contract.join_limits.get("max_rows")
    if limit is not None and text.num_rows > limit:
        raise FleetError(f"{text.num_rows} rows; at most {limit:.0f}", remedy="Leave out what the fleet does not need.")
    bad = np.zeros(text.num_rows, dtype=bool)

    def refuse(reason: str, mask: np.ndarray) -> None:
        new = mask & ~bad
        if new.any():
            refused[reason] = (int(new.sum()), int(new.argmax()) + 1)
            np.logical_or(bad, new, out=bad)

    rows = text
    for number, column in enumerate(contract.columns):
        values, wrong = _typed(text[column.name], column.type, column.unit)
        refuse(f"{column.name} is no {'time' if column.unit == 'UTC' else 'number'}", wrong)
        rows = rows.set_column(number, column.name, values)
    for failure in evaluate_rows(contract, rows):
        refuse(failure.rule.name, failure.mask)
    numbered = rows.append_column("_row", pa.array(np.arange(rows.num_rows)))
    kept = numbered.filter(pa.array(~bad))
    # Said twice in the same words is said once; in other words, nobody knows which is right.
    once = kept.group_by(rows.schema.names).aggregate([("_row", "min")]).rename_columns([*rows.schema.names, "_row"])
    if len(kept) > len(once):
        refused["the row is there twice"] = (len(kept) - len(once), _first_repeat(kept, once))
    keys = list(contract.primary_key)
    twice = _repeated(once, keys)
    if twice.any():
        first = int(pc.min(once["_row"].filter(pa.array(twice))).as_py()) + 1
        refused[f"{', '.join(keys)} is there twice, with other values"] = (int(twice.sum()), first)
    return once.filter(pa.array(~twice)).sort_by("_row").drop_columns(["_row"]).cast(contract.arrow_schema)


def _typed(values: pa.ChunkedArray, kind: str, unit: str | None) -> tuple[pa.ChunkedArray, np.ndarray]:
    """Values of the type, null where there is none; and where the text says something else."""
    given = ~_mask(pc.is_null(values))
    if unit == "UTC":
        read = pc.strptime(values, _TIME, "s", error_is_null=True)
        # It takes 30 February for 2 March.
        right = _mask(pc.fill_null(pc.equal(pc.strftime(read, _TIME), values), False))
        return values, given & ~right
    if kind != "double":
        return values, np.zeros(len(values), dtype=bool)
    right = _mask(pc.fill_null(pc.match_substring_regex(values, _NUMBER), False))
    numbers = pc.cast(pc.utf8_trim_whitespace(pc.if_else(pa.array(right), values, None)), pa.float64())
    finite = _mask(pc.fill_null(pc.is_finite(numbers), True))
    return numbers, given & ~(right & finite)


def _mask(values: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(values.to_numpy(), dtype=bool)


def _repeated(rows: pa.Table, keys: list[str]) -> np.ndarray:
    counts = rows.append_column("_at", pa.array(np.arange(rows.num_rows))).group_by(keys).aggregate([("_at", "list")])
    mask = np.zeros(rows.num_rows, dtype=bool)
    several = counts.filter(pc.greater(pc.list_value_length(counts["_at_list"]), 1))
    mask[pc.list_flatten(several["_at_list"]).to_numpy()] = True
    return mask


def _first_repeat(kept: pa.Table, once: pa.Table) -> int:
    repeats = pc.invert(pc.is_in(kept["_row"], value_set=once["_row"].combine_chunks()))
    return int(pc.min(kept["_row"].filter(repeats)).as_py()) + 1


def marks(folder: Path) -> dict[str, str]:
    """What changes when a file is written anew, by contract; empty for one that is not there."""
    return {name: _mark(folder / file) for name, file in file_names().items()}


def _mark(path: Path) -> str:
    try:
        found = os.lstat(path)
    except OSError:
        return ""
    return f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"


def summary(file: ContextFile) -> str:
    """A sentence on what a file gave."""
    if file.error is not None:
        return str(file.error)
    if not file.sha256:
        return "it is not there"
    left_out = "; ".join(f"{count} x {reason}, first row {first}" for reason, (count, first) in file.refused.items())
    return f"{file.rows.num_rows} rows" + (f"; refused: {left_out}" if left_out else "")

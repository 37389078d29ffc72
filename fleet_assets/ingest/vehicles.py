"""Vehicles of drives and a register with sloppy names, joined by likeness.

In: vehicle ids and the rows of context.vehicles. Out: the entry of each vehicle, with the weight of the evidence in bits, or
none where the evidence is weak or speaks for two entries alike.

The model is that of Fellegi and Sunter (A Theory for Record Linkage, 1969), by Splink on DuckDB in this process. Names are
compared by their letters, where likeness counts (Jaro-Winkler), and by their numbers, which are the same or not: car7 and
car8 are alike, and two vehicles. How often two entries agree by chance is counted in the register itself; how often the
names of one vehicle differ is set, for a register is too small to learn it from.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_ALIKE = "jaro_winkler_similarity(letters_l, letters_r) >= 0.88"  # Winkler, 1990
# How two names can agree, the strongest first, and how often the names of one vehicle do; the rest does not agree.
_NAMES = (
    ("name_l = name_r", "same letters and numbers", 0.6),
    (f"number_l = number_r AND {_ALIKE}", "same numbers, letters alike", 0.2),
    (f"(number_l IS NULL OR number_r IS NULL) AND {_ALIKE}", "letters alike, no number", 0.15),
)
_SAME_SERIAL = 0.3  # a vehicle id is a serial number here and there
_SERIAL_BY_CHANCE = 1e-4
_COUNTED_ENTRIES = 1000
_MEMORY = "256MB"


@dataclass(frozen=True)
class Match:
    """row: of the register. weight_bits: log2 of the odds that it is the vehicle's."""

    row: Mapping[str, str | None]
    weight_bits: float
    probability: float


def match(
    vehicles: Collection[str], register: pa.Table, *, min_probability: float, min_margin_bits: float
) -> dict[str, Match]:
    """vehicle id -> entry. min_margin_bits: by which the best entry must be ahead of the next."""
    if not vehicles or not register.num_rows:
        return {}
    entries = register.to_pylist()
    wanted = sorted(vehicles)
    left = _compared(wanted, wanted)
    right = _compared([row["name"] for row in entries], [row["serial"] for row in entries])
    found: dict[str, list[tuple[float, float, int]]] = {}
    for pair in _pairs(left, right):
        vehicle, entry = wanted[int(pair["unique_id_l"])], int(pair["unique_id_r"])
        found.setdefault(vehicle, []).append((pair["match_weight"], pair["match_probability"], entry))
    matches = {}
    for vehicle, pairs in found.items():
        (weight, probability, entry), *others = sorted(pairs, key=lambda pair: (-pair[0], pair[2]))
        if probability >= min_probability and (not others or weight - others[0][0] >= min_margin_bits):
            matches[vehicle] = Match(entries[entry], weight, probability)
    return matches


def _pairs(left: pa.Table, right: pa.Table) -> list[dict[str, Any]]:
    """Pairs that agree in the beginning of their letters, in number or in serial, with weights."""
    import duckdb
    import splink.comparison_level_library as levels
    from splink import Linker, SettingsCreator, block_on
    from splink.backends.duckdb import DuckDBAPI
    from splink.comparison_library import CustomComparison

    # Extensions would come over the network.
    options = {"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
    with duckdb.connect(":memory:", config={**options, "memory_limit": _MEMORY, "threads": "1"}) as connection:
        by_chance = _by_chance(connection, right)
        names = [
            levels.CustomLevel(condition, label).configure(m_probability=m, u_probability=u)
            for (condition, label, m), u in zip(_NAMES, by_chance, strict=True)
        ]
        m_else, u_else = 1 - sum(m for *_, m in _NAMES), max(1 - sum(by_chance), 0.01)
        serials = [
            levels.ExactMatchLevel("serial").configure(m_probability=_SAME_SERIAL, u_probability=_SERIAL_BY_CHANCE),
            levels.ElseLevel().configure(m_probability=1 - _SAME_SERIAL, u_probability=1 - _SERIAL_BY_CHANCE),
        ]
        settings = SettingsCreator(
            link_type="link_only",
            # Each vehicle is in the register once.
            probability_two_random_records_match=1 / max(right.num_rows, 2),
            comparisons=[
                CustomComparison(
                    output_column_name="name",
                    comparison_levels=[
                        levels.NullLevel("name"),
                        *names,
                        levels.ElseLevel().configure(m_probability=m_else, u_probability=u_else),
                    ],
                ),
                CustomComparison(output_column_name="serial", comparison_levels=[levels.NullLevel("serial"), *serials]),
            ],
            blocking_rules_to_generate_predictions=[
                block_on("serial"),
                block_on("number"),
                block_on("substr(letters, 1, 2)"),
            ],
        )
        api = DuckDBAPI(connection)
        # Splink calls the table whose name comes first in the alphabet the left one.
        tables = [api.register(left, table_name="a_vehicles"), api.register(right, table_name="b_register")]
        predicted = Linker(tables, settings, log_level="ERROR").inference.predict()
        return list(predicted.as_pyarrow_table().to_pylist())


def _by_chance(connection: DuckDBPyConnection, register: pa.Table) -> list[float]:
    """How often two different entries agree in each of the ways of _NAMES, over at most 1,000 entries.

    Half a pair is added (Jeffreys' prior): that none agreed does not mean that none can.
    """
    cases = " ".join(f"WHEN {condition} THEN {number}" for number, (condition, *_) in enumerate(_NAMES))
    columns = ", ".join(f"{side}.{name} AS {name}_{side}" for name in ("name", "letters", "number") for side in "lr")
    connection.register("entries", register)
    counted = connection.execute(
        f"WITH chosen AS (SELECT * FROM entries ORDER BY hash(name), unique_id LIMIT {_COUNTED_ENTRIES}), "
        f"pairs AS (SELECT {columns} FROM chosen AS l JOIN chosen AS r ON l.unique_id < r.unique_id) "
        f"SELECT CASE {cases} ELSE -1 END AS way, count(*) FROM pairs GROUP BY way"
    ).fetchall()
    of_way = dict(counted)
    return [(of_way.get(number, 0) + 0.5) / (sum(of_way.values()) + 1) for number in range(len(_NAMES))]


def _compared(names: Sequence[str], serials: Sequence[str | None]) -> pa.Table:
    folded = [_folded(name) for name in names]
    letters = [re.sub("[^a-z]", "", name) or None for name in folded]
    numbers = [_number(name) for name in folded]
    columns = {
        "unique_id": [str(number) for number in range(len(names))],
        "name": [f"{word or ''} {number or ''}".strip() or None for word, number in zip(letters, numbers, strict=True)],
        "letters": letters,
        "number": numbers,
        "serial": [re.sub("[^a-z0-9]", "", _folded(text or "")) or None for text in serials],
    }
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def _folded(text: str) -> str:
    """Lower case, without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def _number(name: str) -> str | None:
    """Its digits, group by group, without leading zeros."""
    return " ".join(group.lstrip("0") or "0" for group in re.findall("[0-9]+", name)) or None

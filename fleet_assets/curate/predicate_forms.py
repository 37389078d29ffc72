"""What a predicate is run as: Spark SQL in the lake, a program for memory and vehicle. Both are made from the tree.

In: a Predicate. Out: SQL text, or kernels/predicate.py's Program and what it says of Arrow rows. The two agree on every row;
tests hold them together.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.curate.predicates import Predicate, Term
from fleet_assets.kernels import predicate as k
from fleet_assets.kernels.predicate import TRUE, Program, evaluate

_UNARY = {"float": k.TO_F, "negate": k.NEGATE, "abs": k.ABSOLUTE, "not": k.NOT, "is null": k.IS_NULL}
_PAIRS = {
    "+": k.ADD, "-": k.SUBTRACT, "*": k.MULTIPLY, "/": k.DIVIDE,
    "and": k.AND, "or": k.OR, "coalesce": k.COALESCE,
}  # fmt: skip
_COMPARED = {
    ("=", True): k.EQUAL_F, ("<", True): k.LESS_F, ("<=", True): k.LESS_EQUAL_F,
    ("=", False): k.EQUAL_I, ("<", False): k.LESS_I, ("<=", False): k.LESS_EQUAL_I,
}  # fmt: skip


def spark_sql(predicate: Predicate) -> str:
    """The predicate as Spark SQL; columns are `table`.`column`."""
    return _sql(predicate.term)


def _sql(term: Term) -> str:
    if term.operation == "column":
        column = ".".join(f"`{part}`" for part in str(term.value).split("."))
        return _known(column) if term.kind == "float" else column
    if term.operation == "constant":
        return _constant(term)
    parts = [_sql(argument) for argument in term.arguments]
    match term.operation:
        case "float":
            return f"CAST({parts[0]} AS DOUBLE)"
        case "negate":
            return f"(- {parts[0]})"
        case "not":
            return f"(NOT {parts[0]})"
        case "is null":
            return f"({parts[0]} IS NULL)"
        case "abs" | "coalesce":
            return f"{term.operation}({', '.join(parts)})"
        case "/":  # a division by zero is not known, and no error
            return _known(f"try_divide({', '.join(parts)})")
        case "+" | "-" | "*":
            return _known(f"({parts[0]} {term.operation} {parts[1]})")
    return f"({parts[0]} {term.operation.upper()} {parts[1]})"


def _known(sql: str) -> str:
    return f"nanvl({sql}, CAST(NULL AS DOUBLE))"


def _constant(term: Term) -> str:
    match term.kind:
        case "bool":
            return "TRUE" if term.value else "FALSE"
        case "float":
            return f"{term.value!r}D" if term.value >= 0 else f"(- {-term.value!r}D)"
        case "int":
            return f"CAST({term.value} AS BIGINT)"
    return "'" + str(term.value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def program_of(predicate: Predicate) -> Program:
    """The predicate in postfix order."""
    steps: list[tuple[int, int]] = []
    floats: list[float] = []
    ints: list[int] = []
    float_columns: list[str] = []
    int_columns: list[str] = []
    words = _words(predicate.term)

    def place(values: list, value: object) -> int:
        if value not in values:
            values.append(value)
        return values.index(value)

    def leaf(term: Term) -> tuple[int, int]:
        is_float = term.kind == "float"
        if term.operation == "column":
            columns = float_columns if is_float else int_columns
            return (k.COLUMN_F if is_float else k.COLUMN_I), place(columns, str(term.value))
        if is_float:
            floats.append(float(term.value))
            return k.CONSTANT_F, len(floats) - 1
        ints.append(int(term.value))
        return k.CONSTANT_I, len(ints) - 1

    def add(term: Term) -> int:
        """Adds the term's steps; gives how much of the stack they need."""
        if not term.arguments:
            steps.append(leaf(term))
            return 1
        if term.operation == "=" and term.arguments[0].kind == "text":
            column, text = sorted(term.arguments, key=lambda argument: argument.operation == "constant")
            ints.append(words[str(column.value)].index(str(text.value)))
            steps.extend([leaf(column), (k.CONSTANT_I, len(ints) - 1), (k.EQUAL_I, 0)])
            return 2
        needs = [at + add(argument) for at, argument in enumerate(term.arguments)]
        if term.operation in _UNARY:
            steps.append((_UNARY[term.operation], 0))
        elif term.operation in _PAIRS:
            steps.append((_PAIRS[term.operation], 0))
        else:
            steps.append((_COMPARED[term.operation, term.arguments[0].kind == "float"], 0))
        return max(needs)

    depth = add(predicate.term)
    return Program(
        operation=np.array([code for code, _ in steps], dtype=np.int64),
        argument=np.array([at for _, at in steps], dtype=np.int64),
        floats=np.array(floats, dtype=np.float64),
        ints=np.array(ints, dtype=np.int64),
        depth=depth,
        float_columns=tuple(float_columns),
        int_columns=tuple(int_columns),
        texts=tuple(words.get(name) for name in int_columns),
    )


def _words(term: Term) -> dict[str, tuple[str, ...]]:
    """Per column of texts the words that it is compared with."""
    found: dict[str, set[str]] = {}
    for part in term.walk():
        if part.operation == "column" and part.kind == "text":
            found.setdefault(str(part.value), set())
        if part.operation == "=" and part.arguments[0].kind == "text":
            column, text = sorted(part.arguments, key=lambda argument: argument.operation == "constant")
            found.setdefault(str(column.value), set()).add(str(text.value))
    return {name: tuple(sorted(words)) for name, words in found.items()}


def outcomes(program: Program, rows: pa.Table) -> np.ndarray:
    """int8 [rows]: TRUE, FALSE or UNKNOWN of each. rows: columns by qualified name, such as ego_motion.speed_mps."""
    floats = np.zeros((len(program.float_columns), rows.num_rows))
    ints = np.zeros((len(program.int_columns), rows.num_rows), dtype=np.int64)
    floats_known, ints_known = np.zeros(floats.shape, dtype=bool), np.zeros(ints.shape, dtype=bool)
    for at, name in enumerate(program.float_columns):
        floats[at] = rows[name].to_numpy()
        floats_known[at] = rows[name].is_valid().to_numpy()
    for at, (name, words) in enumerate(zip(program.int_columns, program.texts, strict=True)):
        column = rows[name]
        ints_known[at] = column.is_valid().to_numpy()
        if words is not None:
            column = pc.index_in(column, value_set=pa.array(words, pa.string()))
        ints[at] = pc.fill_null(column.cast(pa.int64()), -1 if words is not None else 0).to_numpy()
    return evaluate(program, floats, floats_known, ints, ints_known)


def selected(predicate: Predicate, rows: pa.Table) -> np.ndarray:
    """bool [rows]: where the predicate is TRUE."""
    return outcomes(program_of(predicate), rows) == TRUE

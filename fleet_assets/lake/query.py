"""`fleet query`: one SELECT over contract tables, at one commit.

In: SQL text from anyone. Out: rows. The text is parsed; anything but one SELECT over tables that have a contract is
refused before an engine sees it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from fleet_assets.contracts.loader import load_tables
from fleet_assets.errors import FleetError
from fleet_assets.lake.tables import Snapshot, contract_of

if TYPE_CHECKING:
    from sqlglot import exp

_LENGTH = 20_000
# The engine's own stack ends somewhere behind this, and the process with it.
_DEPTH = 500
# They make rows or text of any size from nothing.
_UNBOUNDED = frozenset({"array_repeat", "array_resize", "generate_series", "list_repeat", "list_resize"}) | {
    *("lpad", "pad", "range", "repeat", "rpad", "space")
}


def run_query(snapshot: Snapshot, sql: str, *, limit: int) -> pa.Table:
    """At most limit rows; columns of one name are numbered: stream, stream_2. Raises FleetError for anything that is not one
    SELECT over contract tables."""
    from deltalake.query import QueryBuilder

    text, tables = rewrite(sql, limit)
    builder = QueryBuilder()
    for table in sorted(tables):
        builder = builder.register(_registered(table), snapshot.table(table))
    try:
        found = pa.table(builder.execute(text))
    except Exception as error:  # the engine raises several kinds, some of them bare Exceptions
        raise FleetError(
            "The query failed", where=str(error).splitlines()[0], remedy="Check columns and types."
        ) from error
    return found.rename_columns(_told_apart(found.column_names))


def _told_apart(names: Sequence[str]) -> list[str]:
    """The same names, each once: rows as dictionaries would lose the others."""
    taken = set(names)
    seen: set[str] = set()
    told = []
    for name in names:
        new = name
        if name in seen:
            new = next(text for number in itertools.count(2) if (text := f"{name}_{number}") not in taken)
            taken.add(new)
        seen.add(name)
        told.append(new)
    return told


def _registered(table: str) -> str:
    return table.replace(".", "__")


def rewrite(sql: str, limit: int) -> tuple[str, set[str]]:
    """Checked SQL with a row limit, and the contract tables that it reads."""
    from sqlglot import exp

    statement = _parse(sql)
    _check(statement)
    names = {cte.alias for cte in statement.find_all(exp.CTE)}
    tables = set()
    for table in list(statement.find_all(exp.Table)):
        if not isinstance(table.this, exp.Identifier):
            raise FleetError(
                f"Table function {table.sql()} is not taken", remedy=f"Read one of: {', '.join(load_tables())}."
            )
        if not table.db and table.name in names:
            continue
        name = contract_of(f"{table.db}.{table.name}" if table.db else table.name).name
        if table.catalog:
            raise FleetError(f"There is no catalogue {table.catalog}", remedy=f"Say {name}.")
        tables.add(name)
        if not table.alias:
            table.set("alias", exp.TableAlias(this=table.this.copy()))
        table.set("this", exp.to_identifier(_registered(name)))
        table.set("db", None)
    for column in statement.find_all(exp.Column):
        column.set("db", None)  # ingest.imu.stream: the alias is imu
    if statement.args.get("limit"):
        statement = exp.select("*").from_(statement.subquery("q"))
    statement.set("limit", exp.Limit(expression=exp.Literal.number(limit)))  # around a subquery it would lose its order
    return statement.sql(dialect="postgres", comments=False), tables


def _parse(sql: str) -> exp.Query:
    """The one SELECT in a text. Raises FleetError."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    if len(sql) > _LENGTH:
        raise FleetError(f"The query has {len(sql)} characters; at most {_LENGTH} are read")
    if not sql.isprintable() and any(not (c.isprintable() or c.isspace()) for c in sql):
        raise FleetError("The query has characters that cannot be printed", remedy="Type it anew.")
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect="postgres") if statement is not None]
    except (SqlglotError, RecursionError) as error:
        raise FleetError("This is no SQL", where=str(error).splitlines()[0]) from error
    if len(statements) != 1 or not isinstance(statements[0], (exp.Select, exp.SetOperation)):
        kind = type(statements[0]).__name__.upper() if len(statements) == 1 else f"{len(statements)} statements"
        raise FleetError(f"Only one SELECT is taken, not {kind}", remedy="Tables change through assets alone.")
    return statements[0]


def _check(statement: exp.Query) -> None:
    """Refuses what a SELECT may hold and this one may not."""
    from sqlglot import exp

    level, depth = [statement], 0
    while level:
        depth += 1
        level = [child for node in level for child in node.iter_expressions()]
    if depth > _DEPTH:
        raise FleetError(
            f"The query is nested {depth} deep; at most {_DEPTH} are taken",
            remedy="Long sums and chains of OR nest too: say it with IN, or in several queries.",
        )
    for node in statement.walk():
        if isinstance(node, (exp.From, exp.Join)) and isinstance(node.this, (exp.Select, exp.SetOperation)):
            raise FleetError("A SELECT that is read from stands in parentheses", remedy="Write FROM (SELECT ...) AS q.")
        if isinstance(node, (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.Pivot, exp.TableSample)):
            if not isinstance(node, (exp.Select, exp.SetOperation, exp.Subquery)):
                raise FleetError(f"{type(node).__name__.upper()} is not taken inside a SELECT")
        elif isinstance(node, exp.With) and node.recursive:
            raise FleetError("WITH RECURSIVE is not taken: it may never end")
        elif isinstance(node, exp.Func):
            name = (node.name if isinstance(node, exp.Anonymous) else node.sql_name()).lower()
            if name in _UNBOUNDED:
                raise FleetError(f"The function {name} is not taken: what it makes has no bound")

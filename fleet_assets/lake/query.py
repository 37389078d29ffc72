"""`fleet query`: one SELECT over contract tables, at one commit.

In: SQL text from anyone. Out: rows. The text is parsed; anything but one SELECT over tables that have a contract is
refused before an engine sees it.
"""

from __future__ import annotations

import pyarrow as pa

from fleet_assets.contracts.loader import load_tables
from fleet_assets.errors import FleetError
from fleet_assets.lake.tables import Snapshot, contract_of

_LENGTH = 20_000


def run_query(snapshot: Snapshot, sql: str, *, limit: int) -> pa.Table:
    """At most limit rows. Raises FleetError for anything that is not one SELECT over contract tables."""
    from deltalake.query import QueryBuilder

    text, tables = rewrite(sql, limit)
    builder = QueryBuilder()
    for table in sorted(tables):
        builder = builder.register(_registered(table), snapshot.table(table))
    try:
        return pa.table(builder.execute(text))
    except Exception as error:  # the engine raises several kinds, some of them bare Exceptions
        raise FleetError(
            "The query failed", where=str(error).splitlines()[0], remedy="Check columns and types."
        ) from error


def _registered(table: str) -> str:
    return table.replace(".", "__")


def rewrite(sql: str, limit: int) -> tuple[str, set[str]]:
    """Checked SQL with a row limit, and the contract tables that it reads."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    if len(sql) > _LENGTH:
        raise FleetError(f"The query has {len(sql)} characters; at most {_LENGTH} are read")
    try:
        statements = [statement for statement in sqlglot.parse(sql, dialect="postgres") if statement is not None]
    except (SqlglotError, RecursionError) as error:
        raise FleetError("This is no SQL", where=str(error).splitlines()[0]) from error
    if len(statements) != 1 or not isinstance(statements[0], (exp.Select, exp.SetOperation)):
        kind = type(statements[0]).__name__.upper() if len(statements) == 1 else f"{len(statements)} statements"
        raise FleetError(f"Only one SELECT is taken, not {kind}", remedy="Tables change through assets alone.")
    statement = statements[0]
    forbidden = next(statement.find_all(exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock), None)
    if forbidden is not None and not isinstance(forbidden, (exp.Select, exp.SetOperation, exp.Subquery)):
        raise FleetError(f"{type(forbidden).__name__.upper()} is not taken inside a SELECT")
    names = {cte.alias for cte in statement.find_all(exp.CTE)}
    tables = set()
    for table in statement.find_all(exp.Table):
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
        alias = table.alias or table.name
        table.replace(exp.alias_(exp.to_table(_registered(name)), alias, table=True))
    outer = exp.select("*").from_(statement.subquery("q")).limit(limit)
    return outer.sql(dialect="postgres"), tables

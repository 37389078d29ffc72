"""What is made from a contract: the CREATE TABLE statement, and the reference pages.

In: contracts. Out: text. (The Arrow schema is `TableContract.arrow_schema`, the Great Expectations suite
`audit.suite`.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from fleet_assets.contracts.model import Column, Rule, StreamContract, TableContract

# Features that not every Delta reader has stay off; what a writer may turn on by default is pinned here.
DELTA_PROPERTIES = {
    "delta.minReaderVersion": "1",
    "delta.minWriterVersion": "2",
    "delta.enableDeletionVectors": "false",
    "delta.columnMapping.mode": "none",
    "delta.enableRowTracking": "false",
    "delta.enableTypeWidening": "false",
    "delta.enableInCommitTimestamps": "false",
    "delta.checkpointPolicy": "classic",
}


def ddl(contract: TableContract, location: str) -> str:
    """CREATE TABLE in Spark SQL. location: such as s3a://fleet/<branch>/tables/ingest/imu."""
    columns = ",\n".join(
        f"  `{column.name}` {column.type}{' NOT NULL' if column.required else ''} COMMENT {_quoted(_meaning(column))}"
        for column in contract.columns
    )
    partition = f"PARTITIONED BY ({', '.join(contract.partition_by)})\n" if contract.partition_by else ""
    properties = ", ".join(f"{_quoted(key)} = {_quoted(value)}" for key, value in DELTA_PROPERTIES.items())
    return (
        f"CREATE TABLE IF NOT EXISTS delta.`{location}` (\n{columns}\n)\nUSING delta\n{partition}"
        f"COMMENT {_quoted(contract.description)}\nTBLPROPERTIES ({properties})"
    )


def pages(
    tables: Iterable[TableContract] | None = None, streams: Iterable[StreamContract] | None = None
) -> dict[str, str]:
    """All reference pages by file name."""
    from fleet_assets.contracts.loader import load_context, load_streams, load_tables

    context = list(load_context().values()) if tables is None else []
    tables = list(load_tables().values()) if tables is None else list(tables)
    streams = list(load_streams().values()) if streams is None else list(streams)
    named = {f"{contract.name}.md": table_page(contract) for contract in (*tables, *context)}
    return {"README.md": index_page(tables, streams, context), **named, "streams.md": streams_page(streams)}


def index_page(
    tables: Sequence[TableContract], streams: Sequence[StreamContract], context: Sequence[TableContract] = ()
) -> str:
    """The list of all contracts, in Markdown."""
    lines = [
        "# Reference",
        "",
        "Made from the contracts under `fleet_assets/contracts` by `fleet contracts docs`; change them, not these pages.",
        "",
        "## Tables",
        "",
        *grid(
            ("table", "version", "holds"),
            [(f"[{table.name}]({table.name}.md)", table.version, table.description) for table in tables],
        ),
        "",
        *_context_files(context),
        "## Sensor streams",
        "",
        *grid(
            ("stream", "version", "kind", "what"),
            [(f"[{s.name}](streams.md#{s.name})", s.version, s.kind, s.description) for s in streams],
        ),
    ]
    return "\n".join(lines) + "\n"


def _context_files(context: Sequence[TableContract]) -> list[str]:
    rows = [(f"[{file.name}]({file.name}.md)", file.version, file.description) for file in context]
    return ["## Files of context", "", *grid(("file", "version", "holds"), rows), ""] if rows else []


def table_page(contract: TableContract) -> str:
    """The reference page of a table, in Markdown."""
    facts = [
        ("version", contract.version),
        ("owner", contract.owner),
        ("primary key", ", ".join(contract.primary_key) or "none"),
        ("partitioned by", ", ".join(contract.partition_by) or "nothing"),
        ("one drive's rows are replaced together", _yes(contract.per_drive)),
        ("kept when the drive is quarantined", _yes(contract.keeps_quarantined)),
        ("expected to change every", f"{contract.freshness_hours:g} h" if contract.freshness_hours else "no promise"),
        ("retention class", contract.retention_class),
        ("stays in", contract.residency),
        *((f"join limit: {name.replace('_', ' ')}", f"{limit:g}") for name, limit in contract.join_limits.items()),
    ]
    lines = [
        f"# {contract.name}",
        "",
        contract.description,
        *_paragraph("Use", contract.usage),
        *_paragraph("Limits", contract.limitations),
        "",
        *grid(("", ""), facts),
        "",
        "## Columns",
        "",
        *grid(
            ("column", "type", "required", "unit", "personal", "meaning"),
            [
                (
                    f"`{column.name}`",
                    f"`{column.type}`",
                    _yes(column.required),
                    column.unit or "",
                    column.classification.removeprefix("personal: "),
                    column.description,
                )
                for column in contract.columns
            ],
        ),
        *_sources(contract),
        "",
        "## Rules",
        "",
        *_rules(contract.rules),
    ]
    return "\n".join(lines) + "\n"


def streams_page(contracts: Sequence[StreamContract]) -> str:
    """The reference page of all sensor streams, in Markdown."""
    lines = ["# Sensor streams"]
    for stream in contracts:
        facts = [
            ("version", stream.version),
            ("owner", stream.owner),
            ("kind", f"{stream.kind}, to [{stream.table}]({stream.table}.md)"),
            ("topics", ", ".join(f"`{topic}`" for topic in stream.topics)),
            ("nominal rate", f"{stream.nominal_rate_hz:g} Hz" if stream.nominal_rate_hz else "none"),
            ("a gap is a step over", f"{stream.gap_limit_ns / 1e6:g} ms" if stream.gap_limit_ns else "no limit"),
            ("latency limit", f"{stream.latency_limit_ms:g} ms" if stream.latency_limit_ms else "none"),
            ("clock domain", stream.clock_domain),
            ("stamp point", stream.stamp_point),
            ("scan period", f"{stream.scan_period_ns / 1e6:g} ms" if stream.scan_period_ns else "does not scan"),
            ("phase", "none" if stream.phase is None else f"looks ahead after {stream.phase:g} of a sweep"),
            ("range", f"{stream.max_range_m:g} m" if stream.max_range_m else "none"),
            ("failure modes", "; ".join(stream.failure_modes) or "none known"),
            ("retention class", stream.retention_class),
            ("stays in", stream.residency),
            ("personal data", stream.personal_data),
        ]
        lines += ["", f"## {stream.name}", "", stream.description, "", *grid(("", ""), facts), ""]
        lines += _rules(stream.rules)
    return "\n".join(lines) + "\n"


def _rules(rules: Sequence[Rule]) -> list[str]:
    """A rule's scope says what a failure costs: the row, the drive, or the whole transaction."""
    return grid(
        ("rule", "scope", "blocks", "asks", "why"),
        [(rule.name, rule.scope, _yes(rule.blocking), f"`{_asks(rule)}`", rule.description) for rule in rules],
    )


def _asks(rule: Rule) -> str:
    arguments = ", ".join(f"{key}={json.dumps(value)}" for key, value in rule.kwargs.items())
    return f"{rule.expectation.removeprefix('expect_')}({arguments})"


def _sources(contract: TableContract) -> list[str]:
    rows = [
        (f"`{column.name}`", ", ".join(f"`{source}`" for source in column.sources))
        for column in contract.columns
        if column.sources
    ]
    return ["", "## Made from", "", *grid(("column", "columns"), rows)] if rows else []


def _meaning(column: Column) -> str:
    return f"{column.description} [{column.unit}]" if column.unit else column.description


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _paragraph(label: str, text: str) -> list[str]:
    return ["", f"{label}: {text}"] if text else []


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return [line(head), "|" + "---|" * len(head), *(line(row) for row in rows)]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

"""What is made from a contract: the CREATE TABLE statement and the reference page.

In: contracts. Out: text. (The Arrow schema is `TableContract.arrow_schema`, the Great Expectations suite `audit.suite`,
the Dagster schema `specs.column_schema`.)
"""

from __future__ import annotations

from pathlib import Path

from fleet_assets.contracts.loader import StreamContract, TableContract, load_streams, load_tables

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
        f"  `{column.name}` {column.type}{' NOT NULL' if column.required else ''} COMMENT {_quoted(column.description)}"
        for column in contract.columns
    )
    partition = f"PARTITIONED BY ({', '.join(contract.partition_by)})\n" if contract.partition_by else ""
    properties = ", ".join(f"{_quoted(key)} = {_quoted(value)}" for key, value in DELTA_PROPERTIES.items())
    return (
        f"CREATE TABLE IF NOT EXISTS delta.`{location}` (\n{columns}\n)\nUSING delta\n{partition}"
        f"COMMENT {_quoted(contract.description)}\nTBLPROPERTIES ({properties})"
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def table_page(contract: TableContract) -> str:
    """The reference page of a table, in Markdown."""
    lines = [
        f"# {contract.name}",
        "",
        contract.description,
        "",
        f"Version {contract.version}, owner `{contract.owner}`, primary key {', '.join(contract.primary_key)}"
        + (", kept for quarantined drives." if contract.keeps_quarantined else "."),
        "",
        "| column | type | required | unit | meaning |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {c.name} | {c.type} | {'yes' if c.required else ''} | {c.unit or ''} | {c.description} |"
        for c in contract.columns
    ]
    lines += ["", "| rule | scope | blocking | why |", "|---|---|---|---|"]
    lines += [f"| {r.name} | {r.scope} | {'yes' if r.blocking else 'no'} | {r.description} |" for r in contract.rules]
    return "\n".join(lines) + "\n"


def streams_page(contracts: list[StreamContract]) -> str:
    """The reference page of all sensor streams, in Markdown."""
    lines = [
        "# Sensor streams",
        "",
        "| stream | kind | topics | rate [Hz] | gap limit [periods] | clock domain | stamp point | range [m] | meaning |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.name} | {s.kind} | {', '.join(f'`{topic}`' for topic in s.topics)} | {s.nominal_rate_hz or ''} "
        f"| {s.gap_limit_periods or ''} | {s.clock_domain} | {s.stamp_point} | {s.max_range_m or ''} | {s.description} |"
        for s in contracts
    ]
    return "\n".join(lines) + "\n"


def pages() -> dict[str, str]:
    """All reference pages by file name."""
    tables = {f"{name}.md": table_page(contract) for name, contract in load_tables().items()}
    return {**tables, "streams.md": streams_page(list(load_streams().values()))}


def write_pages(folder: Path) -> list[str]:
    """Writes the pages that differ from what is there; gives their names."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for name, text in pages().items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            changed.append(name)
    return changed

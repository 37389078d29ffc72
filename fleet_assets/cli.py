"""The `fleet` command.

In: arguments. Out: what they ask for, as a table or with --json as one document. Every command says in --help what it
does and shows an example; exit codes are in `console.Exit`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_assets import console
from fleet_assets.cli_contracts import contracts_app
from fleet_assets.cli_datasets import datasets_app
from fleet_assets.cli_features import features_app
from fleet_assets.cli_gate import gate_app
from fleet_assets.cli_keys import keys_app
from fleet_assets.cli_release import release_app, trace_command
from fleet_assets.console import Exit
from fleet_assets.errors import FleetError
from fleet_assets.services.home import Home

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="The data flywheel of an autonomous fleet. Start with `fleet up`, then `fleet ingest PATH`.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 done and found something to act on.",
)
show_app = typer.Typer(no_args_is_help=True, help="What the lake says about drives. Example: `fleet show drives`")
app.add_typer(show_app, name="show")
app.add_typer(contracts_app, name="contracts")
app.add_typer(features_app, name="features")
app.add_typer(gate_app, name="gate")
app.add_typer(datasets_app, name="datasets")
app.add_typer(keys_app, name="keys")
app.add_typer(release_app, name="release")
app.command("trace")(trace_command)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
Ref = Annotated[str, typer.Option("--at", help="Branch, tag or commit of the lake.", metavar="REF")]


def main() -> None:
    """Entry point: a FleetError becomes one line and exit code 1."""
    try:
        app()
    except FleetError as error:
        console.print_error(error)
        sys.exit(Exit.FAILED)
    except KeyboardInterrupt:
        console.say("Interrupted. What was queued goes on in the daemon; `fleet status` shows it.")
        sys.exit(130)


# ---- servers ---------------------------------------------------------------------------------------------------------


@app.command()
def up(json: Json = False) -> None:
    """Start lakeFS, Spark Connect, the Dagster webserver and daemon, and keep them running.

    In a new lake, the tables are made too. Example: `FLEET_HOME=~/fleet fleet up`
    """
    from fleet_assets.contracts.loader import load_tables
    from fleet_assets.lake.lake import Lake
    from fleet_assets.lake.schema import apply, differences
    from fleet_assets.services import supervisor

    home = Home.open()
    supervisor.up(home, progress=console.say)
    lake = Lake.open(home)
    lake.ensure()
    waiting = differences(lake.at(), load_tables().values())
    if len(waiting) == len(load_tables()) and all(difference.missing for difference in waiting):
        console.say(f"New lake: {len(apply(lake))} tables made from their contracts.")
    elif waiting:
        console.say(f"{len(waiting)} tables are not as their contracts say: run `fleet contracts apply`.")
    _print_status(home, json)


@app.command()
def down(json: Json = False) -> None:
    """Stop all servers of this installation. Example: `fleet down`"""
    from fleet_assets.services import supervisor

    home = Home.open()
    with console.waiting("stopping the servers"):
        supervisor.down(home)
    _print_status(home, json)


@app.command()
def status(json: Json = False) -> None:
    """Whether each server answers, where, since when, and its log; what the lake holds; where they answer, how far the
    recordings of the landing folder are. Example: `fleet status --json`"""
    if not _print_status(Home.open(), json, landing=True):
        raise typer.Exit(Exit.FINDINGS)


def _print_status(home: Home, as_json: bool, *, landing: bool = False) -> bool:
    from dataclasses import asdict

    from fleet_assets.lake.garbage import last_mark
    from fleet_assets.lake.lake import REPOSITORY
    from fleet_assets.services import supervisor

    services = supervisor.status(home)
    rows = [asdict(service) for service in services]
    mark = last_mark(home, REPOSITORY)
    ready = all(service.ready for service in services)
    counts = _landing(home) if landing and ready and home.landing.is_dir() else None
    if as_json:
        console.print_json({"servers": rows, "lake": mark and asdict(mark), "landing": counts})
    else:
        console.print_rows(rows, title=f"Servers of {home.root}", empty="No server is known.", as_json=False)
        console.say(str(mark) if mark else "The lake's bytes are not counted yet: the night does it.")
        if counts is not None:
            console.print_rows([counts], title=f"Recordings in {home.landing}", empty="", as_json=False)
    return ready


def _landing(home: Home) -> dict[str, int]:
    from fleet_assets import runs
    from fleet_assets.lake.lake import Lake

    with console.waiting("reading the lake"), runs.instance_of(home) as instance:
        return runs.landing(instance, home, Lake.open(home).at("main"))


@app.command()
def doctor(json: Json = False) -> None:
    """Check the machine and the installation, with a remedy for each finding. Example: `fleet doctor`"""
    from dataclasses import asdict

    from fleet_assets.services.doctor import doctor as examine

    findings = examine(Home.open())
    console.print_rows(
        [asdict(finding) for finding in findings], title="Findings", empty="Nothing to check.", as_json=json
    )
    if not all(finding.ok for finding in findings):
        raise typer.Exit(Exit.FINDINGS)


# ---- work ------------------------------------------------------------------------------------------------------------


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Recordings: each file or folder is one.", exists=True)],
    vehicle: Annotated[str | None, typer.Option(help="Vehicle id, if the recording does not tell.")] = None,
    start: Annotated[str | None, typer.Option(help="UTC start, ISO 8601, if the recording does not tell.")] = None,
    json: Json = False,
) -> None:
    """Bring recordings into the landing folder; the daemon carries them on.

    Originals are read, never changed. Example: `fleet ingest drive.mcap --vehicle car7`
    """
    from dataclasses import asdict

    from fleet_assets.capture.deliver import deliver

    home = Home.open()
    rows: list[dict[str, Any]] = []
    failed = False
    for path in paths:
        try:
            with console.progress(f"copying {path.name}", in_bytes=True) as advance:
                rows.append(asdict(deliver(path, home.landing, vehicle=vehicle, start=start, progress=advance)))
        except FleetError as error:
            failed = True
            console.print_error(error)
    console.print_rows(rows, title="Delivered", empty="Nothing was delivered.", as_json=json)
    if failed:
        raise typer.Exit(Exit.FAILED)


@app.command()
def run(
    selection: Annotated[str, typer.Argument(help="Assets, in Dagster's selection syntax.")] = "*",
    drives: Annotated[list[str] | None, typer.Option(help="Only these drives, done or not. Repeatable.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="demo or full: how assets that are made as a whole are made.")
    ] = None,
    json: Json = False,
) -> None:
    """Run assets through the daemon's queue and wait: what is missing per drive, or the given drives again; then, when a
    selection or a profile asks for it, what is made of all drives as a whole.

    Examples: `fleet run`, `fleet run "group:synchronise" --drives car7--20260102T030405Z`, `fleet run --profile full`
    """
    from fleet_assets import runs, show
    from fleet_assets.definitions import defs
    from fleet_assets.lake.lake import Lake
    from fleet_assets.resources import PROFILES, Profile

    if profile not in (None, *PROFILES):
        raise FleetError(f"There is no profile {profile}", remedy=f"Choose one of {', '.join(PROFILES)}.")
    home = Home.open()
    selected = runs.select(selection, defs)
    whole = [] if drives or (selection == "*" and profile is None) else selected.whole
    with runs.instance_of(home) as instance:
        with console.progress("waiting for the landing sensor") as advance:
            runs.await_landed(instance, home, advance)
        with console.progress("runs") as advance:
            ended = runs.run(instance, home, selected.per_drive, drives, advance)
        if whole and ended.ok:
            with console.progress("run of what is made as a whole") as advance:
                run_id = runs.launch_whole(home, whole, profile or Profile().name)
                ended = ended.and_then(runs.follow_whole(instance, run_id, len(whole), advance))
    done = show.drives(Lake.open(home).at("main"), ended.drives)
    if json:
        console.print_json({"ok": ended.ok, "runs": ended.runs, "failures": ended.failures, "drives": done})
    else:
        console.print_rows(done, title=f"{len(ended.drives)} drives", empty="No drive was due.", as_json=False)
        for run_id, why in ended.failures:
            console.say(f"run {run_id[:8]} failed: {why}")
    if not ended.ok:
        raise typer.Exit(Exit.FAILED)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="One SELECT over contract tables, such as ingest.streams.")],
    at: Ref = "main",
    limit: Annotated[int, typer.Option(help="Rows at most.", min=1, max=1_000_000)] = 1000,
    json: Json = False,
) -> None:
    """One SELECT over contract tables at one commit.

    Example: `fleet query "SELECT stream, sum(gaps) FROM ingest.streams GROUP BY stream" --at main`
    """
    from fleet_assets.lake.lake import Lake

    with console.waiting("query"):
        result = Lake.open(Home.open()).at(at).query(sql, limit=limit)
    console.print_rows(result.to_pylist(), title=f"{result.num_rows} rows", empty="No rows.", as_json=json)


@app.command()
def simulate(
    drives: Annotated[int, typer.Option(help="How many.", min=1, max=100_000)] = 1,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.", min=0)] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the recordings.", file_okay=False)] = Path("simulated"),
    duration: Annotated[float, typer.Option(help="Seconds of each drive.", min=1.0, max=86_400.0)] = 30.0,
    setup: Annotated[str, typer.Option(help="Sensors: default, fine, surround, dense.")] = "default",
    faults: Annotated[
        list[str] | None, typer.Option(help="NAME or NAME:TARGET, with commas or repeated; `list` names them.")
    ] = None,
    vehicle: Annotated[str | None, typer.Option(help="Vehicle id of all drives.")] = None,
    region: Annotated[str | None, typer.Option(help="Only this region; else all in turn. So for the next two.")] = None,
    light: Annotated[str | None, typer.Option(help="day, dusk or night.")] = None,
    weather: Annotated[str | None, typer.Option(help="clear, rain or fog.")] = None,
    json: Json = False,
) -> None:
    """Write recordings of simulated drives, each with the truth about clocks and faults beside it, and a map of their lanes.

    Example: `fleet simulate --drives 6 --seed 1 --faults drops,clock_jump --out drives`, then `fleet ingest drives/*.mcap`
    """
    from dataclasses import asdict

    from fleet_assets.simulate.drives import FAULTS
    from fleet_assets.simulate.fleet import make_fleet, plan_fleet

    wanted = [name for text in faults or [] for name in text.split(",") if name]
    if wanted == ["list"]:
        known = [
            {"name": name, "target": kind.target or "the file", "what": kind.what} for name, kind in FAULTS.items()
        ]
        console.print_rows(known, title="Faults", empty="None.", as_json=json)
        return
    plans = plan_fleet(drives, seed, vehicle=vehicle, region=region, light=light, weather=weather)
    rows: list[dict[str, Any]] = []
    with console.progress(f"simulating {drives} drives") as advance:
        making = make_fleet(
            plans, out, duration_s=duration, setup=setup, faults=wanted,
            progress=lambda done, total: advance(len(rows) * total + done, drives * total),
        )  # fmt: skip
        for made in making:
            truth = asdict(made.truth)
            about = {name: truth[name] for name in ("vehicle", "start", "region", "light", "weather")}
            size = made.path.stat().st_size
            rows.append({"file": str(made.path), **about, "messages": made.truth.messages, "bytes": size})
    console.print_rows(rows, title=f"{len(rows)} drives", empty="Nothing was written.", as_json=json)


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="Which one; `fleet bench list` names them.")],
    size: Annotated[
        list[float] | None, typer.Option(help="Its sizes (hours, GB or rows), instead of its own; repeat for more.")
    ] = None,
    chart: Annotated[Path | None, typer.Option(help="Folder for a picture of the result.")] = None,
    json: Json = False,
) -> None:
    """Time our work beside peers and the hardware floor, in one run. Example: `fleet bench publish --json`"""
    from benchmarks import harness

    if name == "list":
        console.print_rows(harness.names(), title="Benchmarks", empty="None.", as_json=json)
        return
    with console.waiting(f"benchmark {name}"):
        result = harness.run(name, harness.Options(tuple(size or ())))
    if chart is not None:
        from benchmarks import charts

        charts.draw(name, result, chart)
    if json:
        console.print_json(result)
    else:
        machine = ", ".join(f"{what.replace('_', ' ')} {value}" for what, value in result["machine"].items())
        console.print_rows(result["rows"], title=f"{name}; {machine}", empty="No rows.", as_json=False)


@app.command()
def demo() -> None:
    """Simulate a few drives, most of them with faults, and carry them through. Example: `fleet demo`"""
    from fleet_assets.demo import demo as play

    if not play(Home.open()):
        raise typer.Exit(Exit.FAILED)


# ---- show ------------------------------------------------------------------------------------------------------------


@show_app.command("drives")
def show_drives(at: Ref = "main", json: Json = False) -> None:
    """One row per drive. Example: `fleet show drives --at main`"""
    from fleet_assets import show
    from fleet_assets.lake.lake import Lake

    with console.waiting("reading the lake"):
        snapshot = Lake.open(Home.open()).at(at)
        rows = show.drives(snapshot)
    console.print_rows(rows, title=f"Drives at {snapshot.commit_id[:12]}", empty="No drive yet.", as_json=json)


@show_app.command("drive")
def show_drive(drive_id: Annotated[str, typer.Argument(metavar="KEY")], at: Ref = "main", json: Json = False) -> None:
    """Streams, ledger, clocks and matches of one drive. Example: `fleet show drive car7--20260102T030405Z`"""
    from fleet_assets import show
    from fleet_assets.lake.lake import Lake

    with console.waiting("reading the lake"):
        facts = show.drive(Lake.open(Home.open()).at(at), drive_id)
    if json:
        console.print_json(facts)
        return
    tables = {name: value for name, value in facts.items() if isinstance(value, list) and name != "reasons"}
    about = show.for_people({name: value for name, value in facts.items() if name not in tables})
    console.print_rows([about], title=f"At commit {facts['commit_id'][:12]}", empty="", as_json=False)
    for name, rows in tables.items():
        title = f"\n{name.replace('_', ' ').capitalize()}"
        console.print_rows(list(map(show.for_people, rows)), title=title, empty=f"{title}: none", as_json=False)


@show_app.command("landing")
def show_landing(json: Json = False) -> None:
    """How far the recordings of the landing folder are. Example: `fleet show landing`

    Landed: complete. Registered: the landing sensor has seen them. Then each is waiting, running, published or quarantined.
    """
    home = Home.open()
    counts = _landing(home)
    if json:
        console.print_json(counts)
    else:
        console.print_rows([counts], title=f"Recordings in {home.landing}", empty="", as_json=False)


@show_app.command("quarantine")
def show_quarantine(at: Ref = "main", json: Json = False) -> None:
    """Quarantined drives, and folders in the landing that could not be taken. Example: `fleet show quarantine`"""
    from fleet_assets import show
    from fleet_assets.capture.recordings import scan
    from fleet_assets.lake.lake import Lake

    home = Home.open()
    with console.waiting("reading the lake"):
        rows = show.quarantine(Lake.open(home).at(at))
        not_taken = scan(home.landing).not_taken()
    landed = [{"folder": item.folder, "reason": item.reason, "remedy": item.remedy} for item in not_taken]
    if json:
        console.print_json({"drives": rows, "landing": landed})
        return
    brief = list(map(show.for_people, rows))
    console.print_rows(brief, title="Quarantined drives", empty="No drive is quarantined.", as_json=False)
    if rows:
        console.say("`fleet show quarantine --json` shows the sample rows.")
    if landed:
        console.print_rows(landed, title="\nNot taken from the landing folder", empty="", as_json=False)

"""`fleet features bundle | skew`: bundles for vehicles, and how what vehicles see differs from training.

In: arguments. Out: what they ask for, as in `cli`.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_assets import console
from fleet_assets.console import Exit
from fleet_assets.errors import FleetError
from fleet_assets.features.commands import features_app

bundle_app = typer.Typer(
    no_args_is_help=True, help="Signed bundles. Example: `fleet features bundle verify PATH --keys KEY.pub`"
)
features_app.add_typer(bundle_app, name="bundle")

VARIABLE = "FLEET_KEY_PASSPHRASE"
Keys = Annotated[
    list[Path], typer.Option("--keys", help="Public keys that count, or folders of them. Repeatable.", metavar="PATH")
]
Key = Annotated[Path, typer.Option("--key", help=f"The private key; its passphrase is in {VARIABLE}, or is asked for.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


def _passphrase(*, new: bool = False) -> str:
    known = os.environ.get(VARIABLE)
    return (
        known
        if known is not None
        else str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=new, err=True))
    )


@bundle_app.command("key")
def bundle_key(path: Annotated[Path, typer.Argument(help="A new file.")], json: Json = False) -> None:
    """Make a key that signs, encrypted, and its public half beside it. Example: `fleet features bundle key keys/fleet`"""
    from fleet_assets.signing.keys import PUBLIC_SUFFIX, SigningKey

    key = SigningKey.create(path, _passphrase(new=True))
    row = {"key": str(path), "public": f"{path}{PUBLIC_SUFFIX}", "id": key.id}
    console.print_rows([row], title="Made", empty="", as_json=json)


@bundle_app.command("build")
def bundle_build(
    snapshot: Annotated[Path, typer.Argument(help="A snapshot file.", exists=True)],
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    key: Key,
    since: Annotated[Path | None, typer.Option(help="A bundle: also make FOLDER.delta, what changed since it.")] = None,
    json: Json = False,
) -> None:
    """Sign a snapshot for vehicles. Example: `fleet features bundle build place.snapshot bundles/7 --key keys/fleet`"""
    from fleet_assets.features.bundle_build import build_delta
    from fleet_assets.features.service_snapshot import signed_bundle
    from fleet_assets.signing.keys import KeyRing, SigningKey

    signer = SigningKey.read(key, _passphrase())
    manifest = signed_bundle(snapshot, folder, signer)
    rows = [{"folder": str(folder), "id": manifest.id, "bytes": _bytes(folder)}]
    if since is not None:
        delta = build_delta(since, folder, folder.with_name(f"{folder.name}.delta"), KeyRing([signer.public]))
        rows.append({"folder": str(delta), "id": manifest.id, "bytes": _bytes(delta)})
    console.print_rows(rows, title="Built", empty="", as_json=json)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@bundle_app.command("verify")
def bundle_verify(
    path: Annotated[Path, typer.Argument(help="A bundle, or where bundles are installed.")],
    keys: Keys,
    json: Json = False,
) -> None:
    """Check signature and hash of every file. Example: `fleet features bundle verify bundles/7 --keys keys/fleet.pub`"""
    from fleet_assets.edge.features import FeatureBundle
    from fleet_assets.signing.keys import KeyRing

    bundle = FeatureBundle.open(path, KeyRing.read(*keys))
    bundle.verify()
    console.print_rows([asdict(bundle.versions)], title="As it was signed", empty="", as_json=json)


@bundle_app.command("install")
def bundle_install(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or a delta from the active one.")],
    root: Annotated[Path, typer.Argument(help="Where bundles are installed.")],
    keys: Keys,
    json: Json = False,
) -> None:
    """Verify, copy and activate. Example: `fleet features bundle install bundles/7 /var/lib/features --keys fleet.pub`"""
    from fleet_assets.edge import bundle as bundles
    from fleet_assets.signing.keys import KeyRing

    ring = KeyRing.read(*keys)
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    manifest = bundles.install(bundle, root, ring)
    bundles.activate(root, manifest.id, ring)
    console.print_rows([{"active": manifest.id}], title="Installed", empty="", as_json=json)


@bundle_app.command("rollback")
def bundle_rollback(
    root: Annotated[Path, typer.Argument(help="Where bundles are installed.")], keys: Keys, json: Json = False
) -> None:
    """Make the version before active again. Example: `fleet features bundle rollback /var/lib/features --keys fleet.pub`"""
    from fleet_assets.edge import bundle as bundles
    from fleet_assets.signing.keys import KeyRing

    console.print_rows(
        [{"active": bundles.rollback(root, KeyRing.read(*keys))}], title="Rolled back", empty="", as_json=json
    )


@features_app.command("skew")
def skew(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or where bundles are installed.")],
    seen: Annotated[Path, typer.Argument(help="What a device recorded.", exists=True)],
    keys: Keys,
    limit: Annotated[float, typer.Option(help="From which effect size on a difference matters.", min=0.0)] = 0.1,
    json: Json = False,
) -> None:
    """How what vehicles see differs from training, as effect sizes with 95 % intervals; exit code 3 where it matters.

    Example: `fleet features skew bundles/7 seen.json --keys keys/fleet.pub`
    """
    from fleet_assets.edge.features import FeatureBundle
    from fleet_assets.signing.keys import KeyRing

    rows = _skew_rows(FeatureBundle.open(bundle, KeyRing.read(*keys)), seen, limit)
    console.print_rows(rows, title="Vehicle against training", empty="Nothing was recorded.", as_json=json)
    if any(row["verdict"] == "skewed" for row in rows):
        raise typer.Exit(Exit.FINDINGS)


def _skew_rows(bundle: Any, seen: Path, limit: float) -> list[dict[str, Any]]:
    from fleet_assets.edge.sketch import Sketch, compare

    try:
        document = json.loads(seen.read_bytes())
        view, sketches = bundle.snapshot.view(str(document["view"])), dict(document["sketches"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FleetError(
            f"{seen} is no record of a device", where=str(error), remedy="Take one with `recorder`."
        ) from error
    return [
        {"feature": name, **{k: _finite(v) for k, v in asdict(found).items()}, "verdict": found.verdict}
        for name, sketch in sketches.items()
        if name in view.sketches
        for found in compare(Sketch.from_json(view.sketches[name]), Sketch.from_json(sketch), limit=limit)
    ]


def _finite(value: Any) -> Any:
    """JSON has no infinity: an interval without an end has None there."""
    return None if isinstance(value, float) and not math.isfinite(value) else value

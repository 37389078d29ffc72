"""The jars that Spark needs for Delta and S3, fetched once by Spark's own resolver.

In: infra/spark/ivy.xml (what), ivysettings.xml (from where), jars.sha256 (what must come out). Out: a folder of jars in
the user's cache, complete and with the listed hashes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from xml.sax.saxutils import quoteattr

from fleet_assets.errors import FleetError
from fleet_assets.services import cache, java


def folder(progress: cache.Progress) -> Path:
    """The folder with exactly the jars of jars.sha256, fetched if it is not there."""
    listed = cache.infra("spark", "jars.sha256").read_bytes()
    target = place(listed)
    # The folder appears in one step, after its jars were checked, so that its being there says that it is complete.
    if target.is_dir():
        return target
    with cache.locked("spark-jars", progress):
        if not target.is_dir():
            progress("Fetching the Delta and S3 jars for Spark (30 MB, once per user).")
            _fetch(target, expected(listed.decode()))
    return target


def place(listing: bytes) -> Path:
    """Where the jars of this listing lie, or will."""
    return cache.folder("spark") / f"jars-{hashlib.sha256(listing).hexdigest()[:12]}"


def expected(listing: str) -> dict[str, str]:
    """File name -> sha256 in hex, from lines as sha256sum writes them."""
    return {name: digest for digest, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", listing, re.MULTILINE)}


def verify(place: Path, wanted: dict[str, str]) -> str | None:
    """What is wrong with a folder of jars, or None."""
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.glob("*.jar")}
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            return f"{name} is missing"
        if found[name] != wanted.get(name):
            return f"{name} has another hash than infra/spark/jars.sha256 says"
    return None


def spark_home() -> Path:
    """Where pyspark keeps Spark; found without importing pyspark, which takes seconds."""
    found = importlib.util.find_spec("pyspark")
    if found is None or not found.submodule_search_locations:
        raise FleetError("pyspark is not installed", remedy="Run `make setup`.")
    return Path(found.submodule_search_locations[0])


def _fetch(target: Path, wanted: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as scratch:
        jars = Path(scratch, "jars")
        said = resolve(jars, Path(scratch))
        fault = verify(jars, wanted)
        if fault:
            log = target.parent / "resolve.log"
            log.write_text(said)
            raise FleetError(
                f"The jars for Spark could not be fetched: {fault}",
                where=str(log),
                remedy="Check the network, proxy and FLEET_MAVEN_ROOT, then run `make setup` again.",
            )
        jars.rename(target)


def resolve(jars: Path, scratch: Path) -> str:
    """Run the resolver; returns what it said. Its cache is in scratch, so nothing but the jars stays."""
    program, _ = java.find()
    command = [
        str(program),
        *java.network_options(scratch),
        "-cp",
        f"{spark_home()}/jars/*",
        "org.apache.ivy.Main",
        *("-settings", str(_settings(scratch))),
        *("-ivy", str(cache.infra("spark", "ivy.xml"))),
        *("-cache", str(scratch / "ivy")),
        *("-types", "jar"),
        *("-retrieve", f"{jars}/[organisation]_[artifact]-[revision].[ext]"),
    ]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    shutil.rmtree(scratch / "ivy", ignore_errors=True)
    return ended.stdout


def _settings(scratch: Path) -> Path:
    """The resolver's settings: the committed ones, or a copy with the root that the user names."""
    committed = cache.infra("spark", "ivysettings.xml")
    mirror = os.environ.get("FLEET_MAVEN_ROOT")
    if not mirror:
        return committed
    text = committed.read_text().replace("<ibiblio ", f"<ibiblio root={quoteattr(mirror.rstrip('/') + '/')} ")
    copy = scratch / "ivysettings.xml"
    copy.write_text(text)
    return copy

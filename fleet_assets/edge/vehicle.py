"""A vehicle: provisioned once, updated from a channel, running what it verified itself.

In: a root of trust, a hardware class and a floor, from whoever provisions it; later a channel's folder. Out: the release to run.

    ROOT/vehicle.json    hardware class          ROOT/root.json    the first root that it trusts
    ROOT/floor.json      its own floor           ROOT/trust/       metadata seen so far: against rollbacks
    ROOT/slots/          two releases            ROOT/numba/       what Numba compiled
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from tuf.api.metadata import Root, TargetFile

from fleet_assets.edge.bundle import write_hashed
from fleet_assets.edge.delta import patched
from fleet_assets.edge.floor import Floor
from fleet_assets.edge.payload import ARCHIVE, HARDWARE, Payload, delta_path, pack, read_document, target_path
from fleet_assets.edge.slots import Slot, Slots
from fleet_assets.edge.trace import trace
from fleet_assets.edge.trial import try_out
from fleet_assets.edge.update import Channel, Offer, UpdateRefused
from fleet_assets.errors import FleetError
from fleet_assets.signing import metadata as tuf
from fleet_assets.signing.files import one_at_a_time, write_durably

TYPE = "vehicle"
_ABOUT, _ROOT, _FLOOR, _DOWNLOAD = "vehicle.json", "root.json", "floor.json", ".download-"


@dataclass(frozen=True)
class Vehicle:
    """root: its folder. hardware: class, which chooses what it installs."""

    root: Path
    hardware: str
    floor: Floor

    @property
    def slots(self) -> Slots:
        return Slots(self.root / "slots")

    @classmethod
    def init(cls, root: Path, trusted: Path, hardware: str, floor: Floor) -> Vehicle:
        """Provisions a vehicle. trusted: root metadata, brought by hand. Raises FleetError if it is provisioned already."""
        if (root / _ABOUT).exists():
            raise FleetError(
                f"{root} is provisioned", remedy="A vehicle gets a new root only from a channel, or in a new folder."
            )
        if not HARDWARE.fullmatch(hardware):
            raise FleetError(f"{hardware!r} is no hardware class", remedy="Take small letters, digits, - and _.")
        first = tuf.read(trusted, Root)
        if not first.signed.get_verification_result("root", first.signed_bytes, first.signatures):
            raise FleetError(
                f"{trusted} is not signed by enough of its own keys", remedy="Take a root of `data/releases/roots`."
            )
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_durably(root / _ROOT, trusted.read_bytes(), mode=0o600)
        write_durably(root / _FLOOR, json.dumps(floor.to_document()).encode(), mode=0o600)
        write_durably(root / _ABOUT, json.dumps({"_type": TYPE, "hardware": hardware}).encode(), mode=0o600)
        return cls.open(root)

    @classmethod
    def open(cls, root: Path) -> Vehicle:
        """Raises FleetError unless it is provisioned, in a folder that nobody else can write to."""
        if not (root / _ABOUT).exists():
            raise FleetError(
                f"{root} is not provisioned", remedy="python -m fleet_assets.edge init --root FILE --hardware CLASS"
            )
        status = root.stat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise FleetError(f"Others can write to {root}", remedy=f"chmod 700 {root}, and provision anew if in doubt.")
        about = read_document(root / _ABOUT)
        if about.get("_type") != TYPE or not HARDWARE.fullmatch(str(about.get("hardware"))):
            raise FleetError(f"{root / _ABOUT} describes no vehicle", remedy="Provision the vehicle anew.")
        return cls(root, str(about["hardware"]), Floor.read(root / _FLOOR))

    def update(self, channel: Path) -> tuple[Slot, bool]:
        """The release that the channel's approvers want here, and whether it is new. Raises UpdateRefused, and FleetError or
        OSError for what fails here; what runs goes on."""
        with one_at_a_time(self.root):
            for left in self.root.glob(f"{_DOWNLOAD}*"):
                shutil.rmtree(left)  # of an update that was cut off
            (self.root / "trust").mkdir(exist_ok=True, mode=0o700)
            source = Channel(channel, self.root / "trust", (self.root / _ROOT).read_bytes())
            offer = source.offer(target_path(self.hardware))
            running = self._running()
            if running is not None and running.release == offer.release:
                return running, False
            self._accept(offer)
            with tempfile.TemporaryDirectory(dir=self.root, prefix=_DOWNLOAD) as scratch:
                archive = Path(scratch, ARCHIVE)
                fetched = self._fetch(source, offer, running, archive)
                slot = self.slots.install(
                    archive, offer.release, source.approvers(), fetched, lambda payload: self._try(payload, offer)
                )
                return slot, True

    def running(self) -> Slot:
        """Raises FleetError if nothing is installed, or it was damaged."""
        slot = self.slots.active()
        if slot is None:
            raise FleetError(f"{self.root} has no release", remedy="Update from a channel first.")
        return slot

    def drive(self, recording: Path, log: Path | None = None, *, begun_s: float | None = None) -> dict[str, Any]:
        """Drives a recording, or the live stream on standard input (-), with what runs, and writes a line per frame to the log.
        Gives what was found, and where the release is not to be relied on: conditions that were not judged, and slices outside
        its operating domain. begun_s: of `time.perf_counter()` when starting began; now unless given.

        Raises FleetError if nothing is installed, or nothing can be inferred.
        """
        begun_s = time.perf_counter() if begun_s is None else begun_s
        from fleet_assets.edge.domain import Domain
        from fleet_assets.edge.inference import infer
        from fleet_assets.edge.recording import LiveStream, Recording

        slot = self.running()
        source = LiveStream(sys.stdin.buffer) if str(recording) == "-" else Recording.open(recording)
        (self.root / "decisions").mkdir(exist_ok=True, mode=0o700)
        log = log or self.root / "decisions" / f"{source.name}.jsonl"
        verdict = Payload(slot.folder, slot.manifest).verdict()
        report = infer(source, slot.folder, partial(Domain.of, verdict), log, begun_s=begun_s)
        return {"release": slot.release, "profile": verdict.profile, "log": str(log), **report.to_document()}

    def trace(self) -> dict[str, Any]:
        """Where the running release comes from, as edge/trace.py says it, and which vehicle says so."""
        slot = self.running()
        payload = Payload(slot.folder, slot.manifest)
        found = trace(slot.release, payload.evidence(), payload.verdict(), slot.approvers)
        return {**found, "hardware": self.hardware, "slot": slot.name}

    def _running(self) -> Slot | None:
        try:
            return self.slots.active()
        except FleetError:
            return None  # damaged: a release that is whole replaces it

    def _fetch(self, source: Channel, offer: Offer, running: Slot | None, archive: Path) -> dict[str, Any]:
        """The archive, as it was signed: made from what runs where the channel has a delta that fits, else as a whole. Gives what
        `Slot.fetched` tells. Raises UpdateRefused."""
        why = "nothing runs"
        if running is not None:
            delta = source.find(delta_path(self.hardware, running.release))
            if delta is None:
                why = "the channel has no delta from what runs"
            else:
                try:
                    _make(source, offer, delta, running, archive)
                except (FleetError, OSError) as error:  # whatever is wrong with it, the whole may be right
                    why = str(error)
                else:
                    return {"bytes": delta.length, "delta": True}
        source.download(offer.target, archive)
        return {"bytes": offer.target.length, "delta": False, "why": why[:300]}

    def _accept(self, offer: Offer) -> None:
        """Before anything is downloaded: hardware and floor, by what was signed."""
        try:
            self.floor.check(offer.verdict)
        except FleetError as error:
            raise UpdateRefused.because("floor", error.what) from error
        needs = offer.target.custom.get("runtime") if isinstance(offer.target.custom, dict) else None
        needs = needs if isinstance(needs, dict) else {}
        has = {"machine": platform.machine(), "onnxruntime": ".".join(metadata.version("onnxruntime").split(".")[:2])}
        for name, value in has.items():
            if needs.get(name) != value:
                raise UpdateRefused.because("hardware", f"{name} {needs.get(name)!r}, and here is {value!r}")

    def _try(self, payload: Payload, offer: Offer) -> None:
        """What was unpacked is what was signed for, and computes here what it computed where it was judged."""
        try:
            same = payload.verdict() == offer.verdict and payload.hardware == self.hardware
        except FleetError as error:
            raise UpdateRefused.because("artefact", str(error)) from error
        if not same:
            raise UpdateRefused.because("artefact", "its verdict or hardware is not what was signed")
        try:
            try_out(payload.folder, payload.manifest["runtime"])
        except FleetError as error:
            raise UpdateRefused.because("trial", f"{error.what}: {error.where}") from error


def _make(source: Channel, offer: Offer, delta: TargetFile, running: Slot, archive: Path) -> None:
    """The offered archive, from that of the running release and a delta. Raises FleetError unless it is what was signed."""
    if delta.length >= offer.target.length:
        raise FleetError("The delta is no smaller than the whole", remedy="Take the whole.")
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        base, file = Path(scratch, "base"), Path(scratch, "delta")
        pack(running.folder, base)
        source.download(delta, file)
        if write_hashed(archive, patched(file, base, offer.target.length)) != (offer.target.length, offer.release):
            raise FleetError("The delta gives another archive than was signed", remedy="Take the whole.")

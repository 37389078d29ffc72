"""Updates from a channel: what a vehicle installs, and every reason for which it does not.

In: a channel's folder, which may be hostile, and what the vehicle was provisioned with. Out: a verified archive and the verdict
whose counts were signed; or an UpdateRefused whose `reason` says what is wrong with the channel. The release that runs is not
touched by any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from tuf.api import exceptions as tuf_errors
from tuf.api.metadata import Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from fleet_assets.edge.payload import ARCHIVE_BYTES_LIMIT
from fleet_assets.edge.verdict import Verdict
from fleet_assets.errors import FleetError
from fleet_assets.signing import metadata as tuf

REASONS = {
    "missing": "the channel lacks what it should have",
    "endless data": "the channel gives more bytes than were signed",
    "wrong key": "the signatures are not of enough trusted keys",
    "rollback": "the channel gives older metadata than was seen before",
    "mix and match": "the channel gives metadata of different times together",
    "freeze": "the channel has not been kept current: its timestamp has expired",
    "expired": "the channel's metadata has expired",
    "artefact": "the archive is not the one that was approved",
    "damaged": "the channel's metadata is no metadata",
    "no release": "the channel has no release for this hardware",
    "hardware": "the release needs another computer",
    "floor": "the release is below this vehicle's floor",
    "trial": "the release did not pass its trial run",
}
_PIECE = 1 << 20
_ROLES = (Root.type, Targets.type, Snapshot.type, Timestamp.type)
_CONFIG = UpdaterConfig(
    max_root_rotations=256, max_delegations=1, root_max_length=1 << 19, timestamp_max_length=1 << 14,
    snapshot_max_length=1 << 20, targets_max_length=tuf.METADATA_BYTES_LIMIT, prefix_targets_with_hash=True,
)  # fmt: skip

Answer = TypeVar("Answer")


class UpdateRefused(FleetError):
    """reason: one of REASONS."""

    reason: str

    @classmethod
    def because(cls, reason: str, where: str, remedy: str | None = None) -> UpdateRefused:
        advice = remedy or "The vehicle keeps what it has; look at the channel."
        refused = cls(f"No update: {REASONS[reason]}", where=where[:300], remedy=advice)
        refused.reason = reason
        return refused


class FolderFetcher(FetcherInterface):
    """Files below one folder, piece by piece; anything else is not there. last: the file that was asked for last."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self.last = ""

    def _fetch(self, url: str) -> Iterator[bytes]:
        parts = urlsplit(url)
        path = Path(unquote(parts.path))
        self.last = path.name
        # A link that leads out of the channel, or a pipe that never ends, is no file of it.
        if parts.scheme != "file" or not path.resolve().is_relative_to(self._folder) or not path.is_file():
            raise tuf_errors.DownloadHTTPError(f"{path} is not there", 404)
        return _pieces(path)


def _pieces(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece


@dataclass(frozen=True)
class Offer:
    """What the channel's approvers want this vehicle to run. target: signed size and hash. verdict: from the signed counts."""

    target: TargetFile
    verdict: Verdict

    @property
    def release(self) -> str:
        return str(self.target.hashes["sha256"])


class Channel:
    """One look at a channel. trust: folder of the vehicle's trusted metadata. provisioned: the root it was given first."""

    def __init__(self, folder: Path, trust: Path, provisioned: bytes) -> None:
        self._trust = trust
        self._fetcher = FolderFetcher(folder)
        base = self._fetcher._folder.as_uri()
        try:
            self._updater = Updater(
                str(trust), f"{base}/metadata/", target_base_url=f"{base}/targets/", fetcher=self._fetcher,
                config=_CONFIG, bootstrap=provisioned,
            )  # fmt: skip
        except (tuf_errors.RepositoryError, DeserializationError, OSError) as error:
            raise FleetError(
                f"The trusted metadata in {trust} cannot be used",
                where=str(error),
                remedy="Provision the vehicle anew.",
            ) from error

    def offer(self, path: str) -> Offer:
        """Refreshes the metadata, and gives what it says about a target. Raises UpdateRefused."""
        target = self._asked(lambda: self._updater.get_targetinfo(path))
        if target is None:
            raise UpdateRefused.because("no release", path)
        if set(target.hashes) != {"sha256"} or not 0 < target.length <= ARCHIVE_BYTES_LIMIT:
            raise UpdateRefused.because("damaged", f"{path} has no size and sha256 that this version takes")
        try:
            custom = target.custom if isinstance(target.custom, dict) else {}
            verdict = Verdict.from_document(custom.get("verdict"), name="the signed verdict")
        except FleetError as error:
            raise UpdateRefused.because("damaged", str(error)) from error
        return Offer(target, verdict)

    def find(self, path: str) -> TargetFile | None:
        """Another target that was signed together with the offer. Raises UpdateRefused."""
        return self._asked(lambda: self._updater.get_targetinfo(path))

    def download(self, target: TargetFile, file: Path) -> None:
        """Writes a target; its size and sha256 are as signed. Raises UpdateRefused."""
        self._asked(lambda: self._updater.download_target(target, str(file)))

    def approvers(self) -> dict[str, str]:
        """Who signed for what the channel offers: key id -> holder."""
        root: Root = tuf.read(self._trust / "root.json", Root).signed
        return tuf.signers(root, Targets.type, tuf.read(self._trust / "targets.json", Targets))

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except (tuf_errors.RepositoryError, tuf_errors.DownloadError) as error:
            raise UpdateRefused.because(self._reason(error), f"{self._fetcher.last}: {error}") from error
        except OSError as error:
            raise UpdateRefused.because("missing", f"{self._fetcher.last}: {error.strerror}") from error

    def _reason(self, error: Exception) -> str:
        """tuf says what it met; what that means depends on the file that was asked for last."""
        role = self._fetcher.last.removesuffix(".json").rpartition(".")[2]
        if isinstance(error, tuf_errors.DownloadLengthMismatchError):
            return "endless data"
        if isinstance(error, tuf_errors.DownloadError):
            return "missing"
        if isinstance(error, tuf_errors.UnsignedMetadataError):
            return "wrong key"
        if isinstance(error, tuf_errors.ExpiredMetadataError):
            root: Root = tuf.read(self._trust / "root.json", Root).signed
            return "freeze" if role == Timestamp.type and not root.is_expired() else "expired"
        if isinstance(error, tuf_errors.LengthOrHashMismatchError):
            return "mix and match" if role in _ROLES else "artefact"
        if isinstance(error, DeserializationError):
            return "damaged"
        if isinstance(error, tuf_errors.BadVersionNumberError):
            return "rollback" if role in (Timestamp.type, Snapshot.type) else "mix and match"
        return "rollback" if role == Snapshot.type else "damaged"

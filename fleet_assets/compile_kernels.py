"""Compiles ahead what whatever runs first would wait for: `python -m fleet_assets.compile_kernels`, as `make setup` does.

In: nothing. Out: Numba's cache, filled by a few seconds of a simulated drive, from the ray caster to the frames of a model.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from fleet_assets.simulate.drives import write_drive
from fleet_assets.train.recordings import WARM_UP_S, frames_of_recordings


def main() -> None:
    with TemporaryDirectory() as scratch:
        recording = Path(scratch) / "drive.mcap"
        start = datetime(2026, 1, 1, 12, tzinfo=UTC)
        write_drive(recording, seed=0, start=start, duration_s=WARM_UP_S + 1.0, vehicle="compile")
        frames_of_recordings([recording])


if __name__ == "__main__":
    main()

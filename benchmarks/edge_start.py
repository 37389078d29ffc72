"""Start and activation on the edge: import to first look-up beside Feast's, and look-ups while versions change.

In: the folder with two installed versions that features_edge has made, whose rows these are. Each step is a process of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.features import numba_note
from benchmarks.features_edge import BATCH, FEAST, VERSIONS, answer_step, keys_of, open_bundle
from benchmarks.harness import Row, row

READS = 10_000_000


def _import(folder: Path) -> list[Row]:
    """Each in new processes, of which the first fills caches."""
    calls = {
        "numpy path": "_first(folder, False, began)",
        "compiled path": "_first(folder, True, began)",
        FEAST: "_first_of_feast(folder, began)",
    }
    taken: dict[str, dict[str, float]] = {}
    for name, call in calls.items():
        program = (
            "import time; began = time.perf_counter()\n"
            "from benchmarks.edge_start import _first, _first_of_feast\n"
            f"folder = {str(folder)!r}; {call}"
        )
        command = [sys.executable, "-W", "ignore", "-c", program]
        ended = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(4)]
        said = [json.loads(text.splitlines()[-1]) for text in ended[1:]]
        taken[name] = {key: statistics.median(one[key] for one in said) for key in said[0]}
    feast = taken.pop(FEAST)
    return [
        row(
            f"edge import to first look-up, {name}",
            {"ours": own["s"], FEAST: feast["s"]},
            note=f"{own['mib']:.0f} MiB beyond the map, peak {own['peak_mib']:.0f} MiB with files; {FEAST}: "
            f"{feast['mib']:.0f} MiB, without torch; {'numba loaded' if own['numba'] else 'without numba'}",
        )
        for name, own in taken.items()
    ]


def _first(folder: str, compiled: bool, began: float) -> None:
    bundle = open_bundle(Path(folder), compiled)
    bundle.lookup("place", 7919, bundle.answer("place"))
    _say(began)


def _first_of_feast(folder: str, began: float) -> None:
    # Feast loads it where it is installed, and needs it for nothing here.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from feast import FeatureStore

    from benchmarks.features_online import NAMES

    store = FeatureStore(repo_path=str(Path(folder) / FEAST))
    store.get_online_features(features=[f"place:{name}" for name in NAMES], entity_rows=[{"cell": 7}]).to_dict()
    _say(began)


def _say(began: float) -> None:
    seconds = time.perf_counter() - began
    anonymous = [
        line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith("Anonymous")
    ]
    mib = int(anonymous[0].split()[1]) / 1024
    said = {"s": seconds, "mib": mib, "peak_mib": _peak_mib(), "numba": "numba" in sys.modules}
    sys.stdout.write("\n" + json.dumps(said))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _activate(folder: Path) -> list[Row]:
    """Look-ups while versions change four times a second, beside the same ones in peace; and how many answers are mixed while
    another thread takes up versions that change all the time."""
    bundle = open_bundle(folder, True)
    out, keys = bundle.answer("place"), keys_of(folder, 200_000)

    def look_up(refresh: bool) -> list[float]:
        taken = []
        for index, key in enumerate(keys):
            started = time.perf_counter()
            if refresh and index % 64 == 0:
                bundle.refresh()
            bundle.lookup("place", key, out)
            taken.append(time.perf_counter() - started)
        return taken

    look_up(True)
    calm = float(np.percentile(look_up(True), 99))
    with _changing(folder, every_s=0.25):
        busy = float(np.percentile(look_up(True), 99))
    with _changing(folder, every_s=0.0):
        mixed, activations = _mixed(folder, bundle, np.array(keys))
    note = (
        f"p99; {(busy - calm) * 1e6:.1f} us more than without activations; {mixed} of {READS} answers mixed, over {activations} "
        f"activations; {numba_note()}"
    )
    return [row("look-up while versions are activated", {"ours": busy, "floor": calm}, note=note)]


def _mixed(folder: Path, bundle, keys: np.ndarray) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """(answers with a value that is not of the version that they name, how often another version was taken up)."""
    from fleet_assets.edge import bundle as bundles
    from fleet_assets.signing.keys import KeyRing

    ring = KeyRing.read(folder / "key.pub")
    version_of = {bundles.Manifest.read(folder / f"bundle{n}", ring).id: n for n in range(VERSIONS)}
    over, mixed = threading.Event(), 0

    def take_up() -> int:
        count = 0
        while not over.is_set():
            count += bundle.refresh()
        return count

    with ThreadPoolExecutor(1) as pool:
        taken_up = pool.submit(take_up)
        try:
            for start in range(0, READS, BATCH):
                values, _, _, versions = bundle.lookup_many("place", keys[start % keys.size :][:BATCH])
                least = 10 * version_of[versions.bundle]
                mixed += int(np.count_nonzero(((values < least) | (values >= least + 10)).any(axis=1)))
        finally:
            over.set()
    return mixed, taken_up.result()


@contextmanager
def _changing(folder: Path, *, every_s: float) -> Iterator[None]:
    """Versions activated in turn by another process: on a device, what installs is not what looks up."""
    from fleet_assets.edge import bundle as bundles
    from fleet_assets.signing.keys import KeyRing

    root, ring = folder / "root", KeyRing.read(folder / "key.pub")
    child = os.fork()
    if not child:
        try:
            for id_ in itertools.cycle(path.name for path in (root / "versions").iterdir()):
                bundles.activate(root, id_, ring)
                time.sleep(every_s)
        finally:
            os._exit(1)
    try:
        yield
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


if __name__ == "__main__":
    answer_step({"import": _import, "activate": _activate})

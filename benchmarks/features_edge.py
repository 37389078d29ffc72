"""Edge look-ups of 30 features in 1,000,000 rows, beside dict + numpy row, LMDB, redis, and the memory floor.

Rows come from processes of their own, so that one without Numba is really without. Also: building, size, verifying, activating.
Every value tells the version that it is of: it is within ten of ten times the version's number.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.features import numba_note, percentiles, redis_server
from benchmarks.harness import Options, Row, fastest, row

ROWS, FEATURES, CALLS = 1_000_000, 30, 20_000
FEAST, FEAST_ROWS = "feast sqlite", 20_000
VERSIONS, READS, BATCH = 2, 10_000_000, 10_000
_RAW = ROWS * FEATURES * 8


def rows(options: Options) -> list[Row]:
    """Everything about the file and the device."""
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as scratch:
        folder = Path(scratch)
        found = _build(folder)
        for step in ("plain", "compiled", "import", "activate"):
            ended = subprocess.run(
                [sys.executable, "-m", "benchmarks.features_edge", step, scratch],
                capture_output=True,
                text=True,
                check=False,
            )
            if ended.returncode:
                raise RuntimeError(ended.stderr)
            found += json.loads(ended.stdout)
        return found


def _build(folder: Path) -> list[Row]:
    import pyarrow as pa

    from fleet_assets.edge import bundle as bundles
    from fleet_assets.features.bundle_build import build_bundle
    from fleet_assets.features.snapshot_build import EVENT_TIME, SnapshotView, build_snapshot
    from fleet_assets.signing.keys import KeyRing, SigningKey

    random = np.random.default_rng(0)
    names = [f"f{index}" for index in range(FEATURES)]
    ids = random.permutation(ROWS).astype(np.int64) * 7919
    np.save(folder / "ids.npy", ids)
    keys = {"cell": pa.array(ids), EVENT_TIME: pa.array(np.full(ROWS, time.time_ns()))}
    values = random.random((FEATURES, ROWS)) * 9
    views = [
        SnapshotView("place", 1, ["cell"], names, pa.table({**keys, **dict(zip(names, made, strict=True))}), 0, "bench")
        for made in (values + 10 * version for version in range(VERSIONS))
    ]

    def build(version: int = 0) -> int:
        return build_snapshot(
            folder / f"{version}.snapshot",
            [views[version]],
            service="bench",
            lakefs_commit="",
            delta_versions={},
            durable=False,
        ).file_bytes

    zeros = bytes(1 << 20)

    def floor() -> None:
        with open(folder / "floor", "wb") as file:
            for _ in range(size >> 20):
                file.write(zeros)

    size = build()
    times = fastest({"ours": build, "floor": floor}, repeats=3)
    (folder / "floor").unlink()
    times[FEAST] = _feast_row_s(folder) * ROWS
    note = (
        f"{ROWS / times['ours'] / 1e6:.2f} M rows/s; {size / _RAW:.3f} x raw; floor: writing as many bytes; {FEAST} "
        f"materialises {FEAST_ROWS} rows, {ROWS / times[FEAST]:.0f} a second, scaled to {ROWS}; {numba_note()}"
    )
    found = [row(f"build a snapshot of {ROWS} x {FEATURES}", times, note=note)]
    key = SigningKey.create(folder / "key", "a passphrase for benchmarks")
    ring = KeyRing([key.public])
    (folder / "root").mkdir()
    for version in range(VERSIONS):
        build(version)
        build_bundle(folder / f"{version}.snapshot", folder / f"bundle{version}", [key], kernels=[])
        bundles.activate(folder / "root", bundles.install(folder / f"bundle{version}", folder / "root", ring).id, ring)
    manifest = bundles.Manifest.read(folder / "bundle0", ring)

    def sha256() -> str:
        with open(folder / "0.snapshot", "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    times = fastest({"ours": lambda: manifest.check(folder / "bundle0"), "floor": sha256}, repeats=3)
    return [
        *found,
        row(f"verify a bundle of {size >> 20} MiB", times, note=f"floor: sha256 of the same bytes; {numba_note()}"),
    ]


def _feast_row_s(folder: Path) -> float:
    """Seconds that Feast takes per row to put rows into its own online store, which stays for look-ups."""
    from benchmarks.features_online import feast_store, materialise

    store = feast_store(folder, FEAST, {"type": "sqlite", "path": "online.db"}, FEAST_ROWS)
    started = time.perf_counter()
    materialise(store)
    return (time.perf_counter() - started) / FEAST_ROWS


def _open(folder: Path, compiled: bool):  # type: ignore[no-untyped-def]
    from fleet_assets.edge.features import FeatureBundle
    from fleet_assets.signing.keys import KeyRing

    return FeatureBundle.open(folder / "root", KeyRing.read(folder / "key.pub"), compiled=compiled)


def _keys(folder: Path, count: int) -> list[int]:
    return np.random.default_rng(1).choice(np.load(folder / "ids.npy"), count).tolist()


def _lookups(folder: Path, compiled: bool) -> list[Row]:
    with redis_server(folder) as redis:
        return _beside_peers(folder, compiled, redis)


def _beside_peers(folder: Path, compiled: bool, redis: str | None) -> list[Row]:
    import lmdb

    bundle = _open(folder, compiled)
    view = bundle.snapshot.view("place")
    matrix = np.ascontiguousarray(np.stack([view.rows[str(index)] for index in range(FEATURES)], axis=1))
    where = {key: index for index, key in enumerate(view.rows["key"][:, 0].view(np.int64).tolist())}
    out, values, now_ns = bundle.answer("place"), np.empty(FEATURES), time.time_ns()
    database = lmdb.open(str(folder / "lmdb"), map_size=2 << 30, subdir=True)
    if not database.stat()["entries"]:
        with database.begin(write=True) as transaction:
            cursor = transaction.cursor()
            entries = ((key.to_bytes(8, "big"), matrix[index].tobytes()) for key, index in sorted(where.items()))
            cursor.putmulti(entries, append=True)
    transaction = database.begin(buffers=True)

    def by_dict(key: int) -> None:
        values[:] = matrix[where[key]]

    def by_lmdb(key: int) -> None:
        values[:] = np.frombuffer(transaction.get(key.to_bytes(8, "big")), np.float64)

    work: dict[str, Callable[[int], object]] = {
        "ours": lambda key: bundle.lookup("place", key, out, now_ns),
        "dict and numpy row": by_dict,
        "lmdb": by_lmdb,
    }
    if redis:
        work["redis"] = _by_redis(redis, where, matrix, values)
    p50, p99 = percentiles(work, _keys(folder, CALLS))
    note = f"p50; p99 {', '.join(f'{name} {seconds * 1e6:.1f} us' for name, seconds in p99.items())}; {numba_note()}"
    found = [
        row(
            f"edge look-up, {FEATURES} features of {ROWS} rows, {'compiled' if compiled else 'numpy'} path",
            p50,
            note=note,
        )
    ]
    if compiled:
        found += _native(folder, bundle)
    return found


def _by_redis(address: str, where: dict[int, int], matrix: np.ndarray, values: np.ndarray) -> Callable[[int], object]:
    """Rows under the keys that LMDB has them under."""
    from redis import Redis

    host, _, port = address.partition(":")
    client = Redis(host=host, port=int(port))
    rows_ = iter(where.items())
    while block := list(itertools.islice(rows_, BATCH)):
        client.mset({key.to_bytes(8, "big"): matrix[index].tobytes() for key, index in block})

    def look_up(key: int) -> None:
        values[:] = np.frombuffer(client.get(key.to_bytes(8, "big")), np.float64)  # type: ignore[arg-type]

    return look_up


def _native(folder: Path, bundle) -> list[Row]:  # type: ignore[no-untyped-def]
    """From compiled code: keys that are known ahead, and keys of which each follows from the row before."""
    from numba import njit

    from fleet_assets.kernels import lookup as kernels

    snapshot = bundle.snapshot
    words, where = snapshot.words, snapshot.view("place").numba_view()
    keys = np.array(_keys(folder, ROWS), np.int64)
    used = np.ones(ROWS, np.int64)
    rows_ = kernels.find_many(words, where, keys.view(np.uint64).reshape(-1, 1), used).astype(np.uint64)
    values, status, times = np.empty((1024, FEATURES)), np.empty((1024, FEATURES), np.uint8), np.empty(1024, np.int64)
    lookup_many = kernels.lookup_many
    row_of, fill, base, width = kernels._row_of, kernels._fill, where[kernels.ROWS_AT], where[kernels.ROW_WORDS]
    one, many = np.uint64(1), np.uint64(ROWS)
    next_key = keys.view(np.uint64)
    step, three = np.uint64(6364136223846793005), np.uint64(3)

    @njit
    def chain(words, where, keys, values, status, times):  # type: ignore[no-untyped-def]
        at = one
        for index in range(ROWS):
            found = row_of(words, where, keys, at % many, one)
            times[index & 1023] = fill(words, where, found, 0, values[index & 1023], status[index & 1023])
            at = (at * step + words[base + np.uint64(found) * width] + np.uint64(index)) >> three
        return at

    @njit
    def ahead(words, where, keys, used, values, status, times):  # type: ignore[no-untyped-def]
        for start in range(0, ROWS - 1023, 1024):
            lookup_many(words, where, keys[start : start + 1024], used[:1024], 0, values, status, times)

    @njit
    def floor(words, rows, values, chained):  # type: ignore[no-untyped-def]
        source, at = words.view(np.float64), one
        for index in range(ROWS):
            which = at % many if chained else np.uint64(index)
            place = base + rows[which] * width
            for column in range(np.uint64(FEATURES)):
                values[index & 1023, column] = source[place + three + column]
            at = (at * step + words[place] + np.uint64(index)) >> three
        return at

    found = []
    for chained, how in ((True, "each key follows from the row before"), (False, "keys known ahead")):
        work = {
            "ours": (lambda: chain(words, where, next_key, values, status, times))
            if chained
            else (lambda: ahead(words, where, next_key.reshape(-1, 1), used, values, status, times)),
            "floor": lambda c=chained: floor(words, rows_, values, c),
        }
        each = {name: seconds / ROWS for name, seconds in fastest(work, enough_s=15.0).items()}
        note = f"{each['ours'] / each['floor']:.2f} x floor: copying the row at a known place; {numba_note()}"
        found.append(row(f"look-up from compiled code, random, {how}", each, note=note))
    return found


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
            "from benchmarks.features_edge import _first, _first_of_feast\n"
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
    bundle = _open(Path(folder), compiled)
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
    bundle = _open(folder, True)
    out, keys = bundle.answer("place"), _keys(folder, 200_000)

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
    steps: dict[str, Callable[[Path], list[Row]]] = {
        "plain": lambda folder: _lookups(folder, False),
        "compiled": lambda folder: _lookups(folder, True),
        "import": _import,
        "activate": _activate,
    }
    sys.stdout.write(json.dumps(steps[sys.argv[1]](Path(sys.argv[2]))))

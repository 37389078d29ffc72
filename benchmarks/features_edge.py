"""Edge look-ups of 30 features in 1,000,000 rows, beside dict + numpy row, LMDB, redis, and the memory floor.

Rows come from processes of their own, so that one without Numba is really without. Also: building, size, verifying; starting and
activating are in edge_start. Every value tells the version that it is of: it is within ten of ten times the version's number.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.features import numba_note, percentiles, redis_server
from benchmarks.harness import Options, Row, fastest, row

ROWS, FEATURES, CALLS = 1_000_000, 30, 20_000
FEAST, FEAST_ROWS = "feast sqlite", 20_000
VERSIONS, BATCH = 2, 10_000
_RAW = ROWS * FEATURES * 8


def rows(options: Options) -> list[Row]:
    """Everything about the file and the device."""
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as scratch:
        folder = Path(scratch)
        found = _build(folder)
        for module, step in (
            ("features_edge", "plain"), ("features_edge", "compiled"), ("edge_start", "import"), ("edge_start", "activate"),
        ):  # fmt: skip
            ended = subprocess.run(
                [sys.executable, "-m", f"benchmarks.{module}", step, scratch],
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


def open_bundle(folder: Path, compiled: bool):  # type: ignore[no-untyped-def]
    from fleet_assets.edge.features import FeatureBundle
    from fleet_assets.signing.keys import KeyRing

    return FeatureBundle.open(folder / "root", KeyRing.read(folder / "key.pub"), compiled=compiled)


def keys_of(folder: Path, count: int) -> list[int]:
    return np.random.default_rng(1).choice(np.load(folder / "ids.npy"), count).tolist()


def _lookups(folder: Path, compiled: bool) -> list[Row]:
    with redis_server(folder) as redis:
        return _beside_peers(folder, compiled, redis)


def _beside_peers(folder: Path, compiled: bool, redis: str | None) -> list[Row]:
    import lmdb

    bundle = open_bundle(folder, compiled)
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
    p50, p99 = percentiles(work, keys_of(folder, CALLS))
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
    keys = np.array(keys_of(folder, ROWS), np.int64)
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


def answer_step(steps: Mapping[str, Callable[[Path], list[Row]]]) -> None:
    """Prints the rows of the step that the command line names, in the folder that it names."""
    sys.stdout.write(json.dumps(steps[sys.argv[1]](Path(sys.argv[2]))))


if __name__ == "__main__":
    answer_step(
        {"plain": lambda folder: _lookups(folder, False), "compiled": lambda folder: _lookups(folder, True)},
    )

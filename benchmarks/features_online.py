"""Feast's API over our store, beside Feast's own sqlite and redis stores on the same rows; `feast serve` beside its floor."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.features import await_port, numba_note, percentiles, redis_server
from benchmarks.harness import Options, Row, row
from fleet_assets.services.home import free_ports

ROWS, FEATURES = 5_000, 30
_OURS = "fleet_assets.features.online_store.SnapshotOnlineStore"
NAMES = [f"f{index}" for index in range(FEATURES)]
_T = datetime(2026, 1, 1, tzinfo=UTC)


def rows(options: Options) -> list[Row]:
    """In a process of its own, without Numba."""
    with tempfile.TemporaryDirectory(prefix="fleet-bench-") as scratch:
        command = [sys.executable, "-m", "benchmarks.features_online", scratch]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise RuntimeError(ended.stderr)
        return list(json.loads(ended.stdout.splitlines()[-1]))


def feast_store(folder: Path, name: str, online: dict[str, Any], rows: int = ROWS) -> Any:
    """Feast over a file of rows of FEATURES features; `materialise` puts them online."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.types import Float64
    from feast.value_type import ValueType

    repo = folder / name
    repo.mkdir()
    random = np.random.default_rng(0)
    table = pa.table(
        {
            "cell": pa.array(range(rows), pa.int64()),
            "event_timestamp": pa.array([_T] * rows, pa.timestamp("us", "UTC")),
            **{feature: random.normal(size=rows) for feature in NAMES},
        }
    )
    pq.write_table(table, folder / "place.parquet")
    settings = {
        "project": "bench",
        "provider": "local",
        "registry": {"path": str(repo / "registry.db"), "cache_ttl_seconds": 3600},
        "online_store": online,
        "offline_store": {"type": "dask"},
        "entity_key_serialization_version": 3,
    }
    (repo / "feature_store.yaml").write_text(json.dumps(settings))
    store = FeatureStore(config=RepoConfig(**settings, repo_path=repo))
    source = FileSource(path=str(folder / "place.parquet"), timestamp_field="event_timestamp")
    cell = Entity(name="cell", value_type=ValueType.INT64)
    view = FeatureView(
        name="place", entities=[cell], schema=[Field(name=n, dtype=Float64) for n in NAMES], source=source
    )
    store.apply([cell, view])
    return store


def materialise(store: Any) -> None:
    with contextlib.redirect_stdout(sys.stderr):  # it tells what it does
        store.materialize(_T - timedelta(days=1), _T + timedelta(days=1))


def _api(stores: dict[str, Any], redis: str | None) -> list[Row]:
    refs = [f"place:{name}" for name in NAMES]
    found = []
    for count, calls in ((1, 3000), (100, 150)):
        requests = [
            [{"cell": int(cell)} for cell in np.random.default_rng(index).integers(0, ROWS, count)]
            for index in range(calls)
        ]
        work = {
            name: lambda entities, store=store: store.get_online_features(features=refs, entity_rows=entities).to_dict()
            for name, store in stores.items()
        }
        answers = [call(requests[0]) for call in work.values()]
        assert all(answer == answers[0] for answer in answers)
        p50, p99 = percentiles(work, requests)
        ratios = ", ".join(f"{p50[n] / p50['ours']:.0f} x {n}" for n in p50 if n != "ours")
        note = f"p50; p99 {p99['ours'] * 1e6:.0f} us; {ratios}; {'' if redis else 'no redis-server on PATH; '}{numba_note()}"
        found.append(row(f"Feast API, {count} entities, {FEATURES} features, with to_dict", p50, note=note))
    return found


def _serve(folder: Path) -> list[Row]:
    """Over HTTP with one worker and one connection that stays; the floor's store has its answer ready."""
    import http.client

    refs = [f"place:{name}" for name in NAMES]
    body = json.dumps({"features": refs, "entities": {"cell": [7]}})
    headers = {"Content-Type": "application/json"}
    servers, connections = [], {}
    try:
        for name in ("ours", "feast sqlite", "floor"):
            port = free_ports(1)[0]
            settings = {**os.environ, "PYTHONWARNINGS": "ignore", "FEAST_USAGE": "False"}
            repo = "ours" if name == "floor" else name
            command = [sys.executable, "-m", "benchmarks.features_online", "serve", str(folder / repo), str(port), name]
            with open(folder / f"{name}.log", "wb") as log:
                servers.append(subprocess.Popen(command, env=settings, stdout=log, stderr=log))
            await_port(port)
            connections[name] = http.client.HTTPConnection("127.0.0.1", port)

        def ask(name: str) -> bytes:
            connections[name].request("POST", "/get-online-features", body, headers)
            response = connections[name].getresponse()
            content = response.read()
            assert response.status == 200, content
            return content

        assert len({_values(ask(name)) for name in connections}) == 1
        p50, p99 = percentiles({name: lambda _, name=name: ask(name) for name in connections}, range(400))
    finally:
        for server in servers:
            server.terminate()
            server.wait()
    ratio = f"{p50['ours'] / p50['floor']:.2f} x floor: a store with its answer ready"
    note = f"p50; p99 {p99['ours'] * 1e3:.2f} ms; {ratio}; {numba_note()}"
    return [row(f"feast serve, 1 worker, keep-alive, {FEATURES} features", p50, note=note)]


def _values(answer: bytes) -> str:
    """Values by feature: Feast's order of them differs between processes."""
    said = json.loads(answer)
    names = said["metadata"]["feature_names"]
    return json.dumps(sorted((name, found["values"]) for name, found in zip(names, said["results"], strict=True)))


def serve(repo: str, port: int, name: str) -> None:
    """What `feast serve` runs, one worker."""
    from feast import FeatureStore
    from feast.feature_server import start_server

    store = FeatureStore(repo_path=repo)
    if name == "floor":
        online = store._get_provider().online_store
        ready = store.get_online_features(features=[f"place:{n}" for n in NAMES], entity_rows=[{"cell": 7}])
        assert ready.proto

        async def answer(*_: Any, **__: Any) -> Any:
            return ready

        online.get_online_features_async = answer
    start_server(store, "127.0.0.1", port, no_access_log=True, workers=1, worker_connections=100,
                 max_requests=0, max_requests_jitter=0, keep_alive_timeout=60, registry_ttl_sec=3600,
                 tls_key_path="", tls_cert_path="", metrics=False)  # fmt: skip


def main(folder: Path) -> list[Row]:
    warnings.simplefilter("ignore")
    with redis_server(folder) as redis:
        online = {
            "ours": {"type": _OURS, "path": "online", "fold_rows": 1},
            "feast sqlite": {"type": "sqlite", "path": "online.db"},
        }
        if redis:
            online["feast redis"] = {"type": "redis", "connection_string": redis}
        stores = {name: feast_store(folder, name, settings) for name, settings in online.items()}
        for store in stores.values():
            materialise(store)
        found = _api(stores, redis)
    return found + _serve(folder)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        sys.stdout.write("\n" + json.dumps(main(Path(sys.argv[1]))))

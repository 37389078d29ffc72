"""Work on many drives in Spark tasks, many drives to a task.

In: items with a weight in bytes, and a function that can be pickled. Out: the results of the tasks that succeeded, with
their names. The same function runs in this process when parallel is False: the same code, the same bytes.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import json
import pickle
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa

from fleet_assets.lake.session import spark_session
from fleet_assets.services.home import Home

Item = TypeVar("Item")
# A bin this large keeps one core busy for a while; smaller ones would pay a task's fixed cost too often.
BIN_BYTES = 512 * 1024 * 1024
# (items, task name) -> a result that JSON can carry.
Work = Callable[[Sequence[Any], str], Any]


@dataclass(frozen=True)
class TaskResult:
    """task: name of the try that succeeded."""

    task: str
    result: Any


def run_tasks(
    home: Home,
    items: Sequence[Item],
    weight_bytes: Callable[[Item], int],
    work: Work,
    *,
    parallel: bool = True,
    bins: int = 2,
) -> list[TaskResult]:
    """Calls work once per bin of items. bins: at least so many, if there are as many items (one per core)."""
    if not items:
        return []
    packed = pack(items, weight_bytes, bins)
    if not parallel:
        return [_run(work, bin_items) for bin_items in packed]
    spark = spark_session(home)
    payload = [base64.b64encode(pickle.dumps((work, bin_items))).decode() for bin_items in packed]
    frame = spark.createDataFrame([(number, text) for number, text in enumerate(payload)], "bin int, work string")
    spread = frame.repartitionByRange(len(packed), "bin")
    rows = spread.mapInArrow(_in_task, "task string, result string").collect()
    return [TaskResult(row.task, json.loads(row.result)) for row in rows]


def pack(items: Sequence[Item], weight_bytes: Callable[[Item], int], bins: int) -> list[list[Item]]:
    """Items in bins of about equal weight; the largest first, each into the lightest bin; order inside is kept."""
    total = sum(weight_bytes(item) for item in items)
    count = max(1, min(len(items), max(bins, -(-total // BIN_BYTES))))
    weights = [0] * count
    members: list[list[int]] = [[] for _ in range(count)]
    for index in sorted(range(len(items)), key=lambda i: (-weight_bytes(items[i]), i)):
        lightest = weights.index(min(weights))
        weights[lightest] += max(weight_bytes(items[index]), 1)
        members[lightest].append(index)
    return [[items[index] for index in sorted(bin_members)] for bin_members in members if bin_members]


def _run(work: Work, items: Sequence[Any]) -> TaskResult:
    # A new name for every try: what a failed try has written is never published.
    task = f"task-{secrets.token_hex(6)}"
    return TaskResult(task, work(items, task))


def give_back_memory() -> None:
    """Spark keeps its workers: what one has needed for a long drive would stay with it while another works on the next."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _in_task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for text in batch.column("work").to_pylist():
            work, items = pickle.loads(base64.b64decode(text))  # noqa: S301 - our own, over an authenticated connection
            done = _run(work, items)
            give_back_memory()
            yield pa.RecordBatch.from_pydict({"task": [done.task], "result": [json.dumps(done.result)]})

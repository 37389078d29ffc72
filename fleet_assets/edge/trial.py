"""The trial of a release: its model computes its golden vectors in a child process with limits and without a network, before it
counts.

In: a payload's folder. Out: nothing, or a FleetError with what the child said. A model that crashes, hangs, or takes all memory
takes the child along, and not the vehicle's process.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet_assets.edge.confine import confine
from fleet_assets.errors import FleetError

if TYPE_CHECKING:
    from fleet_assets.edge.model import Model

_MEMORY_MB, _SECONDS, _FRAME_MS = (256, 65_536), (1, 3_600), (1, 10_000)  # what a release may ask for
_TRIES = 9  # of a frame
_PACKAGES = Path(__file__).parents[2]
_FILES, _FILE_BYTES, _SAID = 256, 64 << 20, 2_000
# Isolated, and with the parent's own path: the child imports what the parent would.
_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from fleet_assets.edge.trial import child; child(sys.argv[2:])"


def try_out(folder: Path, runtime: Mapping[str, Any]) -> None:
    """folder: of a payload. runtime: its limits. Raises FleetError if the child does not end well within them."""
    memory_mb, seconds = _limit(runtime, "memory_mb", _MEMORY_MB), _limit(runtime, "seconds", _SECONDS)
    frame_ms = _limit(runtime, "frame_ms", _FRAME_MS)
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        _CHILD,
        json.dumps([str(_PACKAGES), *sys.path]),
        str(folder),
        str(memory_mb),
        str(seconds),
        str(frame_ms),
    ]
    kept = {key: os.environ[key] for key in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME") if key in os.environ}
    # A file, which the child's limit on files bounds: a pipe would end in this process's memory.
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, env={**kept, "OMP_NUM_THREADS": "1"}, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=errors, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(4 * seconds)
        except subprocess.TimeoutExpired as error:
            raise FleetError("The trial run does not end", where=f"after {4 * seconds} s", remedy=_REMEDY) from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it started
            process.wait()
        if code:
            errors.seek(max(errors.seek(0, os.SEEK_END) - _SAID, 0))
            said = errors.read().decode(errors="replace").strip()
            last = said.splitlines()[-1] if said else f"exit {code}"
            raise FleetError("The trial run failed", where=last, remedy=_REMEDY)


_REMEDY = "The release stays out; report it with what the trial said."


def _limit(runtime: Mapping[str, Any], name: str, bounds: tuple[int, int]) -> int:
    value = runtime.get(name)
    if type(value) is not int or not bounds[0] <= value <= bounds[1]:
        raise FleetError(f"The release asks for {name} {value!r}", where=f"{bounds[0]} to {bounds[1]}", remedy=_REMEDY)
    return value


def child(arguments: list[str]) -> None:
    """What runs in the child: bounds first, then features and model; and what drives compile is compiled, so that they start at
    once."""
    folder, (memory_mb, seconds, frame_ms) = Path(arguments[0]), map(int, arguments[1:])
    confine()
    for kind, limit in (
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    from fleet_assets.edge.inference import Context
    from fleet_assets.edge.model import Model
    from fleet_assets.edge.warm import warm

    Context.open(folder, "trial")
    model = Model.open(folder / "model")
    model.self_test()
    warm(model)
    needed_ms = _frame_ms(model)
    if needed_ms > frame_ms:
        raise FleetError(f"The model needs {needed_ms:.0f} ms for a frame", where=f"allowed {frame_ms}", remedy=_REMEDY)


def _frame_ms(model: Model) -> float:
    """Processor time of one frame, the median of a few: what else the machine does meanwhile does not count."""
    from fleet_assets.edge.model import GOLDEN, read_golden

    golden = read_golden(model.folder / GOLDEN, remembers=model.lag is not None)
    frame = {name: values[:1] for name, values in golden.items()}
    spent_s = []
    for _ in range(_TRIES):
        began = time.process_time()
        model.run(frame)
        spent_s.append(time.process_time() - began)
    return 1000 * statistics.median(spent_s)

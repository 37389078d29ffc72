"""A logger's clock that is set while it records: all arrivals jump with it, and the stamps of sensors that share it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synchronise.drives import MS, SECOND, T0_NS

from fleet_assets.contracts.loader import load_streams
from fleet_assets.simulate.clocks import delays, draw_clocks, jumping
from fleet_assets.synchronise.clock import Evidence, estimate
from fleet_assets.synchronise.clock_model import Stamps, on_reference
from fleet_assets.synchronise.logger import follow

SENSORS = (("lidar", 10), ("camera_front", 30), ("pose", 20))  # on a clock of their own
OWN = (("imu", 100), ("bus_vehicle", 50), ("gnss", 10), ("gnss_time", 1))  # on the logger's

seeds = st.integers(0, 2**32)
sizes_ns = st.sampled_from([-3000, -300, -50, 50, 300, 3000]).map(lambda size: size * MS)


def drive(
    seed: int, sets: list[tuple[float, int]], *, sensors: bool = True, domain: str = "logger", seconds: int = 60
) -> tuple[dict[str, Stamps], dict[str, np.ndarray]]:
    """Stamps as the simulator's clocks show them, and true times. sets: (when [s], by how much) a clock was set forward."""
    random = np.random.default_rng(seed)
    clocks = draw_clocks(random, T0_NS)
    for at_s, by_ns in sets:
        clocks[domain] = jumping(clocks[domain], T0_NS + round(at_s * SECOND), by_ns)
    stamps, true = {}, {}
    for name, rate_hz in (*(SENSORS if sensors else ()), *OWN):
        contract = load_streams()[name]
        t_ns = T0_NS + np.arange(seconds * rate_hz) * SECOND // rate_hz
        arrival_ns = np.maximum.accumulate(t_ns + delays(random, t_ns.size))
        device = clocks[contract.clock_domain].shows(t_ns + contract.until_end_ns)
        stamps[name] = Stamps(contract, device, clocks["logger"].shows(arrival_ns + contract.until_end_ns))
        true[name] = t_ns + contract.until_end_ns
    return stamps, true


@given(seeds, st.floats(15, 45), sizes_ns, st.booleans())
@settings(deadline=None, derandomize=True, max_examples=40)
def test_records_are_told_as_if_it_had_not_been_set(seed: int, at_s: float, by_ns: int, sensors: bool) -> None:
    stamps, true = drive(seed, [(at_s, by_ns)], sensors=sensors)
    followed = follow(stamps, {"gnss_time": true["gnss_time"]})
    clocks = estimate(Evidence(followed.streams, {"gnss_time": true["gnss_time"]}), "lidar")
    models = followed.recorded(clocks.models)
    assert clocks.logger is not None
    for name, recorded in stamps.items():
        mine = [model for model in models if model.stream == name]
        assert len(mine) == (1 if name in dict(SENSORS) else 2), name
        assert [model.segment for model in mine] == list(range(len(mine)))
        assert sum(model.rows for model in mine) == recorded.t_ns.size
        for model in mine:
            part = recorded.t_ns[model.first_row : model.first_row + model.rows]
            assert (model.t_from_ns, model.t_to_ns) == (part.min(), part.max())
        told, known = on_reference(mine, recorded.t_ns)
        assert known.all()
        assert np.abs(told - true[name]).max() < MS, name
        host = followed.streams[name].t_host_ns
        assert host is not None
        assert np.percentile(np.abs(clocks.logger.apply(host) - true[name]), 90) < 5 * MS, name


def test_a_clock_may_be_set_twice() -> None:
    stamps, true = drive(3, [(20.0, 700 * MS)])
    for name, again in stamps.items():  # the logger, at 40 s, back again
        after = true[name] >= T0_NS + 40 * SECOND
        device, host = (values - np.where(after, 700 * MS, 0) for values in (again.t_device_ns, again.t_host_ns))
        stamps[name] = Stamps(again.contract, again.t_device_ns if name in dict(SENSORS) else device, host)
    followed = follow(stamps, {"gnss_time": true["gnss_time"]})
    assert {name: [round(by_ns / MS) for _, by_ns in shifts] for name, shifts in followed.shifts.items()} == {
        name: [700, 0] for name, _ in OWN
    }


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    "what", ["nothing", "a sensor's clock", "a receiver's time", "a stall", "a pause", "one late stream"]
)
def test_what_is_no_set_changes_nothing(what: str, seed: int) -> None:
    stamps, true = drive(seed, [(30.0, 400 * MS)] if what == "a sensor's clock" else [], domain="vehicle_pc")
    told = true["gnss_time"].copy()
    if what == "a receiver's time":
        told[30:] += 18 * SECOND
    for name, recorded in stamps.items():
        device, host = recorded.t_device_ns, recorded.t_host_ns
        assert device is not None
        assert host is not None
        if what == "a stall":  # what waits comes at once
            waits = slice(*np.searchsorted(true[name], [T0_NS + 30 * SECOND, T0_NS + 32 * SECOND]))
            host[waits] = np.maximum(host[waits], host[min(waits.stop, host.size - 1)])
        elif what == "one late stream" and name == "camera_front":
            host[900:] += 60 * MS
        elif what == "a pause":
            kept = (true[name] < T0_NS + 30 * SECOND) | (true[name] > T0_NS + 33 * SECOND)
            device, host = device[kept], host[kept]
            told = told[kept] if name == "gnss_time" else told
        stamps[name] = Stamps(recorded.contract, device, host)
    followed = follow(stamps, {"gnss_time": told})
    assert followed.shifts == {}
    assert all(np.array_equal(followed.streams[name].t_host_ns, stamps[name].t_host_ns) for name in stamps)

"""Detectors of objects around the vehicle, in PyTorch: forms of fusion behind one interface.

In: the arrays of edge/inputs.py:INPUTS as tensors [n, ...]. Out: heat [n, 3, 48, 48], a logit per class that an object's centre
lies in the cell, and offset [n, 2, 48, 48], where in the cell it lies (0 to 1, x and y). Rows of the grid lie ahead, columns
to the left. A form that remembers also takes edge/memory.py:MEMORY_INPUTS, and gives its memory of the frame.

early       the sensors' grids side by side, one trunk
attention   per cell, sensors are weighed by what they see there, by context and by their health
temporal    attention, and what it made of the sensors in an earlier frame of the drive, brought to where the vehicle is now
late        a specialist per sensor, each with a result of its own, and a combiner that weighs them; specialists do not know of
            each other, so that one can be replaced
average     the mean of the specialists' scores: the baseline
camera, lidar, radar        one sensor alone
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fleet_assets.edge.inputs import CONTEXT, GRID_CELLS, GRID_X_M, GRID_Y_M, INPUTS
from fleet_assets.edge.memory import LAG, MEMORY_INPUTS, MOTION, Lag
from fleet_assets.edge.objects import CLASSES
from fleet_assets.edge.rig import SENSORS
from fleet_assets.errors import FleetError
from fleet_assets.train import lift

WIDTH = 24  # channels of a sensor's grid
_CONDITIONS = len(CONTEXT) + INPUTS["health"][0]
_ATTENDED = MEMORY_INPUTS["earlier"][0]  # channels of the sensors' grids together
_RARE = -4.0  # the logit of a centre, before anything is learned
Output = tuple[Tensor, Tensor]


def _conv(inside: int, outside: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inside, outside, size, stride, size // 2, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
    )


class Lift(nn.Module):
    """Looks features up at each cell of the grid. places: [heights, 48, 48, 2] (lift.py)."""

    places: Tensor

    def __init__(self, places: Sequence[Tensor]) -> None:
        super().__init__()
        self.register_buffer("places", torch.stack(list(places)), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """[n, c, h, w] -> [n, c * heights, 48, 48]."""
        heights = self.places.shape[0]
        # All heights are one tall grid, so that features are gone through once.
        where = self.places.reshape(1, heights * GRID_CELLS, GRID_CELLS, 2).expand(features.shape[0], -1, -1, -1)
        found = functional.grid_sample(features, where, mode="bilinear", padding_mode="zeros", align_corners=False)
        channels = features.shape[1]
        return found.reshape(-1, channels * heights, GRID_CELLS, GRID_CELLS)


class CameraEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_conv(3, 16, 2), _conv(16, 24))
        self.coarse = nn.Sequential(_conv(24, 32, 2), _conv(32, 32), _conv(32, 32), nn.Conv2d(32, 16, 1))
        self.narrow = nn.Conv2d(24, 16, 1)
        self.lift = Lift([torch.from_numpy(lift.of_camera(height)) for height in lift.HEIGHTS_M])
        self.grid = _conv(16 * len(lift.HEIGHTS_M), WIDTH, size=1)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.fine(image)
        seen = self.narrow(fine) + functional.interpolate(self.coarse(fine), scale_factor=2.0, mode="nearest")
        return self.grid(self.lift(functional.relu(seen)))


class LidarEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.grid = nn.Sequential(_conv(INPUTS["lidar"][0], WIDTH, 2), _conv(WIDTH, WIDTH))

    def forward(self, grid: Tensor) -> Tensor:
        return self.grid(grid)


class RadarEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.polar = nn.Sequential(_conv(INPUTS["radar"][0], 16), _conv(16, WIDTH))
        self.lift = Lift([torch.from_numpy(lift.of_radar())])

    def forward(self, polar: Tensor) -> Tensor:
        return self.lift(self.polar(polar))


class Specialist(nn.Module):
    """One sensor's grid, and what it alone makes of it."""

    reach: Tensor

    def __init__(self, sensor: str) -> None:
        super().__init__()
        self.encoder = {"camera": CameraEncoder, "lidar": LidarEncoder, "radar": RadarEncoder}[sensor]()
        x, y = lift.cell_centres()
        place = torch.stack([torch.from_numpy(x / 48.0), torch.from_numpy(y / 24.0)]).float()
        self.register_buffer("reach", place.unsqueeze(0), persistent=False)  # how dense a sensor sees depends on where
        self.mix = _conv(WIDTH + 2, WIDTH)
        self.head = Head(WIDTH)

    def forward(self, sensed: Tensor) -> Tensor:
        grid = self.encoder(sensed)
        return self.mix(torch.cat([grid, self.reach.expand(grid.shape[0], -1, -1, -1)], 1))


class Head(nn.Module):
    def __init__(self, inside: int) -> None:
        super().__init__()
        self.heat, self.offset = nn.Conv2d(inside, len(CLASSES), 1), nn.Conv2d(inside, 2, 1)
        nn.init.constant_(self.heat.bias, _RARE)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Output:
        with torch.autocast("cpu", enabled=False):  # eight bits are too few for a logit
            whole = features.float()
            return self.heat(whole), torch.sigmoid(self.offset(whole))


class Trunk(nn.Module):
    """A small U over the grid, and its head."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.enter = _conv(inside, 32)
        self.down = nn.Sequential(_conv(32, 48, 2), _conv(48, 48), nn.Conv2d(48, 32, 1))
        self.out = nn.Sequential(_conv(32, 32), _conv(32, 32))
        self.head = Head(32)

    def forward(self, features: Tensor) -> Output:
        fine = self.enter(features)
        wide = functional.interpolate(self.down(fine), scale_factor=2.0, mode="nearest")
        return self.head(self.out(functional.relu(fine + wide)))


class Detector(nn.Module):
    """What all forms have in common: a specialist per sensor. Its grid counts where the sensor is there. lag: of a form that
    remembers."""

    sensors: tuple[str, ...] = SENSORS
    lag: Lag | None = None

    def __init__(self) -> None:
        super().__init__()
        self.specialists = nn.ModuleDict({sensor: Specialist(sensor) for sensor in self.sensors})

    def grids(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Per sensor [n, WIDTH, 48, 48]."""
        return {sensor: self._specialist(sensor)(inputs[sensor]) * _there(inputs, sensor) for sensor in self.sensors}

    def _specialist(self, sensor: str) -> Specialist:
        found = self.specialists[sensor]
        assert isinstance(found, Specialist)  # noqa: S101 - ModuleDict does not say what it holds
        return found

    def results(self, inputs: dict[str, Tensor]) -> dict[str, Output]:
        """ "fused", and what each sensor makes of it alone."""
        grids = self.grids(inputs)
        alone = {sensor: self._specialist(sensor).head(grid) for sensor, grid in grids.items()}
        return {"fused": self.fuse(grids, alone, inputs), **alone}

    def fuse(self, grids: dict[str, Tensor], alone: dict[str, Output], inputs: dict[str, Tensor]) -> Output:
        raise NotImplementedError

    def forward(self, camera: Tensor, lidar: Tensor, radar: Tensor, context: Tensor, health: Tensor) -> Output:
        inputs = {"camera": camera, "lidar": lidar, "radar": radar, "context": context, "health": health}
        return self.results(inputs)["fused"]


def _there(inputs: dict[str, Tensor], sensor: str) -> Tensor:
    """[n, 1, 1, 1]: 1 where the sensor has a record."""
    at = SENSORS.index(sensor)
    return inputs["health"][:, at : at + 1].reshape(-1, 1, 1, 1)


def _conditions(inputs: dict[str, Tensor]) -> Tensor:
    return torch.cat([inputs["context"], inputs["health"]], 1)


class Early(Detector):
    def __init__(self) -> None:
        super().__init__()
        inside = WIDTH * len(self.sensors)
        self.bias = nn.Linear(_CONDITIONS, inside)
        self.trunk = Trunk(inside)

    def fuse(self, grids: dict[str, Tensor], alone: dict[str, Output], inputs: dict[str, Tensor]) -> Output:
        bias = self.bias(_conditions(inputs)).unsqueeze(-1).unsqueeze(-1)
        return self.trunk(torch.cat(list(grids.values()), 1) + bias)


class Camera(Early):
    sensors = ("camera",)


class Lidar(Early):
    sensors = ("lidar",)


class Radar(Early):
    sensors = ("radar",)


class Weigher(nn.Module):
    """Weights of the sensors per cell, [n, sensors, 48, 48], summing to 1: by what each sees there, by context and by
    health."""

    def __init__(self, sensors: int) -> None:
        super().__init__()
        self.scores = nn.Conv2d(WIDTH * sensors, sensors, 1)
        self.conditions = nn.Sequential(nn.Linear(_CONDITIONS, 16), nn.ReLU(), nn.Linear(16, sensors))

    def forward(self, grids: list[Tensor], there: list[Tensor], conditions: Tensor) -> Tensor:
        scores = self.scores(torch.cat(grids, 1)) + self.conditions(conditions).unsqueeze(-1).unsqueeze(-1)
        # A sensor that is not there has no weight, however it scores.
        return torch.softmax(scores - 1e4 * (1.0 - torch.cat(there, 1)), 1)


class Attention(Detector):
    seen = _ATTENDED  # channels that the trunk sees

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.ModuleDict({sensor: nn.Conv2d(WIDTH, _ATTENDED, 1) for sensor in self.sensors})
        self.weigher = Weigher(len(self.sensors))
        self.bias = nn.Linear(_CONDITIONS, _ATTENDED)
        self.trunk = Trunk(self.seen)

    def attended(self, grids: dict[str, Tensor], inputs: dict[str, Tensor]) -> Tensor:
        """[n, 40, 48, 48]."""
        conditions = _conditions(inputs)
        there = [_there(inputs, sensor) for sensor in self.sensors]
        weights = self.weigher(list(grids.values()), there, conditions)
        total = self.bias(conditions).unsqueeze(-1).unsqueeze(-1)
        for number, (sensor, grid) in enumerate(grids.items()):
            total = total + self.values[sensor](grid) * weights[:, number : number + 1]
        return total

    def fuse(self, grids: dict[str, Tensor], alone: dict[str, Output], inputs: dict[str, Tensor]) -> Output:
        return self.trunk(self.attended(grids, inputs))


class Warp(nn.Module):
    """Memory of an earlier frame -> [n, channels + 2, 48, 48] where the vehicle is now: the memory, which cells it tells of, and
    how long ago that was. Zero where the earlier grid did not reach, and without an earlier frame."""

    x_m: Tensor
    y_m: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, places in zip(("x_m", "y_m"), lift.cell_centres(), strict=True):
            self.register_buffer(name, torch.from_numpy(places).float().unsqueeze(0), persistent=False)

    def forward(self, earlier: Tensor, motion: Tensor) -> Tensor:
        told = {name: motion[:, at : at + 1].unsqueeze(-1) for at, name in enumerate(MOTION)}
        sin, cos = torch.sin(told["yaw_rad"]), torch.cos(told["yaw_rad"])
        then_x_m = told["x_m"] + cos * self.x_m - sin * self.y_m
        then_y_m = told["y_m"] + sin * self.x_m + cos * self.y_m
        # Columns first, and -1 to 1 over the grid, as grid_sample wants them.
        where = torch.stack([_share(then_y_m, GRID_Y_M), _share(then_x_m, GRID_X_M)], -1)
        known = torch.ones_like(earlier[:, :1])
        whole = torch.cat([earlier, known, known * told["age_s"].unsqueeze(-1)], 1)
        found = functional.grid_sample(whole, where, mode="bilinear", padding_mode="zeros", align_corners=False)
        return found * told["there"].unsqueeze(-1)


def _share(values_m: Tensor, bounds_m: tuple[float, float]) -> Tensor:
    return (values_m - bounds_m[0]) * (2.0 / (bounds_m[1] - bounds_m[0])) - 1.0


class Temporal(Attention):
    """Its memory of a frame is what attention makes of that frame's sensors, so it rests on no earlier one."""

    seen = 2 * _ATTENDED + 2
    lag = LAG

    def __init__(self) -> None:
        super().__init__()
        self.warp = Warp()

    def memory(self, inputs: dict[str, Tensor]) -> Tensor:
        """[n, 40, 48, 48], of inputs without MEMORY_INPUTS."""
        return self.attended(self.grids(inputs), inputs)

    def fuse(self, grids: dict[str, Tensor], alone: dict[str, Output], inputs: dict[str, Tensor]) -> Output:
        return self._recalled(self.attended(grids, inputs), inputs)

    def _recalled(self, now: Tensor, inputs: dict[str, Tensor]) -> Output:
        return self.trunk(torch.cat([now, self.warp(inputs["earlier"], inputs["motion"])], 1))

    def forward(  # type: ignore[override]  # a form that remembers takes and gives more
        self, camera: Tensor, lidar: Tensor, radar: Tensor, context: Tensor, health: Tensor, earlier: Tensor, motion: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        inputs = {
            "camera": camera, "lidar": lidar, "radar": radar, "context": context, "health": health, "earlier": earlier,
            "motion": motion,
        }  # fmt: skip
        now = self.memory(inputs)
        return *self._recalled(now, inputs), now


class Late(Detector):
    """The combiner learns from the specialists' results and changes nothing of them."""

    def __init__(self) -> None:
        super().__init__()
        self.weigher = Weigher(len(self.sensors))
        self.combiner = nn.Sequential(_conv(len(CLASSES) * (len(self.sensors) + 1) + WIDTH, 32), _conv(32, 32))
        self.head = Head(32)

    def fuse(self, grids: dict[str, Tensor], alone: dict[str, Output], inputs: dict[str, Tensor]) -> Output:
        seen = [grid.detach() for grid in grids.values()]
        heats = [alone[sensor][0].detach() for sensor in self.sensors]
        weights = self.weigher(seen, [_there(inputs, sensor) for sensor in self.sensors], _conditions(inputs))
        heat, grid = torch.zeros_like(heats[0]), torch.zeros_like(seen[0])
        for number in range(len(self.sensors)):
            weight = weights[:, number : number + 1]
            heat, grid = heat + weight * heats[number], grid + weight * seen[number]
        change, offset = self.head(self.combiner(torch.cat([heat, *heats, grid], 1)))
        return heat + change, offset


class Average(Detector):
    """No weights, nothing learned beyond the specialists."""

    def fuse(self, grids: dict[str, Tensor], alone: dict[str, Output], inputs: dict[str, Tensor]) -> Output:
        there = [_there(inputs, sensor) for sensor in self.sensors]
        count = torch.stack(there).sum(0).clamp(min=1.0)
        score = torch.stack(
            [torch.sigmoid(alone[sensor][0].detach()) * one for sensor, one in zip(self.sensors, there, strict=True)]
        )
        mean = (score.sum(0) / count).clamp(1e-6, 1.0 - 1e-6)
        sure = score.amax(2, keepdim=True)  # where in the cell is told by who is surest
        share = sure / sure.sum(0).clamp(min=1e-6)
        offset = torch.stack([alone[sensor][1].detach() for sensor in self.sensors])
        return torch.log(mean / (1.0 - mean)), (share * offset).sum(0)


FORMS: dict[str, type[Detector]] = {
    "early": Early, "attention": Attention, "temporal": Temporal, "late": Late, "average": Average, "camera": Camera,
    "lidar": Lidar, "radar": Radar,
}  # fmt: skip


def make(form: str) -> Detector:
    """Raises FleetError for a form that is not known."""
    if form not in FORMS:
        raise FleetError(f"No form of fusion is called {form}", remedy=f"There are {', '.join(FORMS)}.")
    return FORMS[form]()


def parameters_of(model: nn.Module) -> int:
    return sum(values.numel() for values in model.parameters())

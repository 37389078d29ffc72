"""One scene, and what its sensors measure at a time.

In: a drive's seed and conditions, a set-up. Out: images, points, radar sweeps and labels, as arrays. One ray caster
(kernels/raycast.py) looks at the same things for all of them. Every measurement has its own noise, from the seed, the sensor and
its number, so that threads may take them in any order.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fleet_assets.kernels import camera_image, ranging, raycast
from fleet_assets.simulate import town, traffic
from fleet_assets.simulate.conditions import Conditions
from fleet_assets.simulate.figures import Figure, Things
from fleet_assets.simulate.parameters import Setup, parameters
from fleet_assets.simulate.route import Loop, Motion, drive, make_loop

MOUNT_M = 1.3  # all sensors sit so far ahead of the vehicle's origin, which is on the ground
_CAMERA_REACH_M = 130.0
_EXPOSURES_KEPT = 8  # per camera


# image, pixels that are seen and that would be, box; the last three per labelled thing
_Exposure = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Label:
    """One thing that a sensor can see. Place, size and heading in the frame of the vehicle; box: left, top, right, bottom."""

    thing: int
    figure: Figure
    x_m: float
    y_m: float
    yaw_rad: float
    speed_mps: float
    visible_px: int
    visible_fraction: float
    camera: str
    box_px: tuple[float, float, float, float]


class Scene:
    """A drive's world. Methods may be called from several threads at once."""

    def __init__(self, seed: int, conditions: Conditions, setup: Setup, duration_s: float) -> None:
        self.seed, self.conditions, self.setup = seed, conditions, setup
        region, known = conditions.of_region, parameters()
        loop = loop_of(seed)
        self.motion: Motion = drive(generator(seed, "motion"), loop, duration_s, region["speed_mps"])
        self.things = Things()
        self.town = town.build(generator(seed, "town"), loop, region, self.things)
        self.traffic = traffic.populate(
            generator(seed, "traffic"), self.motion, self.town, region, known["traffic"], self.things
        )
        self._shapes = self.things.shapes()
        labelled = [bool(figure.class_name) for figure in self.things.figures]
        self._label_of = np.where(labelled, np.cumsum(labelled) - 1, -1).astype(np.int64)
        self._labelled = np.flatnonzero(labelled)
        self._sections = np.array([figure.section for figure in self.things.figures])
        ground = self.town.ground
        self._ground_place = np.array([*ground.corner_m, town.CELL_M])
        self._lock = threading.Lock()
        self._exposures: OrderedDict[tuple[str, int], Future[_Exposure]] = OrderedDict()

    # ---- cameras ---------------------------------------------------------------------------------------------------

    def image(self, stream: str, number: int) -> np.ndarray:
        """uint8 [rows, columns, 3]: exposure `number` of a camera."""
        return self._exposure(stream, number)[0]

    def labels(self, number: int) -> list[Label]:
        """What is to be labelled at an exposure: by the camera that sees most of it."""
        wanted = parameters()["labels"]
        best: dict[int, Label] = {}
        things, pose = self._at(number / self.setup.camera.rate_hz)
        for stream in self.setup.cameras:
            _, visible, nominal, boxes = self._exposure(stream, number)
            for label in np.flatnonzero(
                (visible >= wanted["least_px"]) & (visible >= wanted["least_visible"] * nominal)
            ):
                thing = int(self._labelled[label])
                found = self._label(
                    thing, things[thing], pose, stream, int(visible[label]), int(nominal[label]), boxes[label]
                )
                if np.hypot(found.x_m, found.y_m) > wanted["reach_m"]:
                    continue
                if thing not in best or best[thing].visible_px < found.visible_px:
                    best[thing] = found
        return [best[thing] for thing in sorted(best)]

    def _label(
        self, thing: int, state: np.ndarray, pose: np.ndarray, stream: str, visible: int, nominal: int, box: np.ndarray
    ) -> Label:
        dx, dy = state[raycast.OBJECT_X] - pose[0], state[raycast.OBJECT_Y] - pose[1]
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        yaw = (state[raycast.OBJECT_YAW] - pose[2] + np.pi) % (2 * np.pi) - np.pi
        left, top, right, bottom = box.tolist()
        return Label(
            thing, self.things.figures[thing], float(cos * dx + sin * dy), float(cos * dy - sin * dx), float(yaw),
            float(state[raycast.OBJECT_SPEED]), visible, visible / nominal, stream, (left, top, right, bottom),
        )  # fmt: skip

    def _exposure(self, stream: str, number: int) -> _Exposure:
        """Image and labels come from one exposure, which is taken once."""
        with self._lock:
            known = self._exposures.get((stream, number))
            if known is None:
                taken = self._exposures[stream, number] = Future[_Exposure]()
                if len(self._exposures) > _EXPOSURES_KEPT * len(self.setup.cameras):
                    self._exposures.popitem(last=False)
        if known is not None:
            return known.result()
        try:
            taken.set_result(self._expose(stream, number))
        except BaseException as error:
            taken.set_exception(error)
        return taken.result()

    def _expose(self, stream: str, number: int) -> _Exposure:
        camera = self.setup.camera
        things, pose = self._at(number / camera.rate_hz)
        looks = _mounted(pose, np.radians(self.setup.cameras[stream]))
        azimuth, focal_px = self._camera_columns
        hits = self._cast(things, looks, azimuth, _CAMERA_REACH_M)
        image = np.empty((camera.rows, camera.columns, 3), dtype=np.uint8)
        visible, nominal = (np.empty(self._labelled.size, dtype=np.int64) for _ in range(2))
        boxes = np.empty((self._labelled.size, 4))
        optics = np.array([focal_px, round(camera.horizon * camera.rows), camera.height_m])
        camera_image.render(
            self._shapes, self._label_of, *hits, azimuth, looks, optics, self.conditions.camera, self.town.ground.classes,
            self._ground_place, self.town.ground.albedo, self._seed(stream, number), image, visible, nominal, boxes,
        )  # fmt: skip
        return image, visible, nominal, boxes

    @cached_property
    def _camera_columns(self) -> tuple[np.ndarray, float]:
        camera = self.setup.camera
        focal_px = camera.columns / 2 / np.tan(np.radians(camera.field_deg) / 2)
        return np.arctan((np.arange(camera.columns) + 0.5 - camera.columns / 2) / focal_px), float(focal_px)

    # ---- LiDAR and radar -------------------------------------------------------------------------------------------

    def points(self, number: int) -> np.ndarray:
        """float32 [n, 4]: x, y, z in the frame of the vehicle, intensity; sweep `number`, at its middle."""
        lidar, figures = self.setup.lidar, parameters()["lidar"]
        things, pose = self._at(number / lidar.rate_hz + self._after_exposure_s)
        looks = _mounted(pose, 0.0)
        half = np.radians(lidar.field_deg) / 2
        azimuth = -half + (np.arange(lidar.azimuths) + 0.5) * 2 * half / lidar.azimuths
        tangents = np.tan(np.radians(np.linspace(lidar.lowest_deg, lidar.highest_deg, lidar.beams)))
        points = np.empty((lidar.azimuths * lidar.beams, 4), dtype=np.float32)
        air = self.conditions
        numbers = np.array([
            lidar.height_m, figures["reach_m"], air.lidar_extinction_pm, air.lidar_backscatter, figures["noise_m"],
            figures["ground_reflectivity"],
        ])  # fmt: skip
        hits = self._cast(things, looks, azimuth, figures["reach_m"])
        count = ranging.sweep_lidar(
            self._shapes, *hits, azimuth, tangents, numbers, self._seed("lidar", number), points
        )
        points[:count, 0] += MOUNT_M
        return points[:count]

    def radar(self, number: int) -> np.ndarray:
        """uint8 [bins, beams, 3]: power, radial velocity, 0 (kernels/ranging.py); sweep `number`, at its middle."""
        radar, figures = self.setup.radar, parameters()["radar"]
        things, pose = self._at(number / radar.rate_hz + self._after_exposure_s)
        looks = _mounted(pose, 0.0)
        rays = radar.beams * ranging.RAYS_PER_BEAM
        azimuth = np.radians(radar.beam_deg) * ((np.arange(rays) + 0.5) / ranging.RAYS_PER_BEAM - radar.beams / 2)
        least, most = figures["ghosts"]
        ghosts = int(generator(self._seed("radar", number), "ghosts").integers(least, most, endpoint=True))
        numbers = np.array([
            radar.bin_m, figures["power"], figures["noise_mps"], ghosts, figures["false_velocity"], figures["most_mps"]
        ])  # fmt: skip
        hits = self._cast(things, looks, azimuth, radar.bins * radar.bin_m)
        image = np.empty((radar.bins, radar.beams, 3), dtype=np.uint8)
        ranging.sweep_radar(
            self._shapes, things, self._sections, *hits, azimuth, looks[2], numbers, self._seed("radar", number), image
        )
        return image

    # ---- shared ----------------------------------------------------------------------------------------------------

    @property
    def _after_exposure_s(self) -> float:
        return float(parameters()["sweep_after_exposure_ms"]) / 1000

    def _at(self, t_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Everybody's place, and ours: x, y, yaw."""
        return self.traffic.at(t_s), np.array([float(value) for value in self.motion.pose(t_s)])

    def _cast(
        self, things: np.ndarray, looks: np.ndarray, azimuth: np.ndarray, reach_m: float
    ) -> tuple[np.ndarray, np.ndarray]:
        placed = np.empty((len(self._shapes), raycast.PLACED_COLUMNS))
        hits = np.empty((azimuth.size, raycast.MOST_HITS, raycast.HIT_COLUMNS))
        hit_count = np.empty(azimuth.size, dtype=np.int64)
        count = raycast.place(self._shapes, things, looks[0], looks[1], looks[2], reach_m, placed)
        raycast.cast(self._shapes, placed, count, azimuth, hits, hit_count)
        return hits, hit_count

    def _seed(self, sensor: str, number: int) -> int:
        return zlib.crc32(f"{self.seed} {sensor} {number}".encode())


def _mounted(pose: np.ndarray, turn_rad: float) -> np.ndarray:
    """Where a sensor is, and where it looks."""
    return np.array([pose[0] + MOUNT_M * np.cos(pose[2]), pose[1] + MOUNT_M * np.sin(pose[2]), pose[2] + turn_rad])


def loop_of(seed: int) -> Loop:
    """The road of a drive."""
    return make_loop(generator(seed, "loop"), parameters()["traffic"]["loop_radius_m"])


def generator(seed: int, what: str) -> np.random.Generator:
    return np.random.default_rng([seed % 2**63, zlib.crc32(what.encode())])

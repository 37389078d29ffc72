"""Messages summed up: images and clouds as ROS 2 writes them, and whatever else may arrive."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image as pictures

from fleet_assets.edge.messages import decode, values_of
from fleet_assets.formats import ros2
from fleet_assets.kernels.features.payload import cloud_summary, image_summary, radar_summary

IMAGE, COMPRESSED, CLOUD = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/PointCloud2"
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])


def png(pixels: np.ndarray) -> bytes:
    """By an encoder that chooses filters."""
    file = io.BytesIO()
    pictures.imsave(file, pixels, format="png", cmap="gray", vmin=0, vmax=255)
    return file.getvalue()


def picture(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    smooth = np.add.outer(np.arange(40) * 3, np.arange(64) * 2)[:, :, None] + random.integers(0, 20, (40, 64, 3))
    return np.clip(smooth, 0, 255).astype(np.uint8)


def compressed(data: bytes) -> bytes:
    return ros2.compressed_image(1, "camera_front", "png", data)


def raw_image(pixels: np.ndarray, encoding: str = "rgb8", step: int | None = None) -> bytes:
    height, width, channels = pixels.shape
    body = ros2.Body().header(1, "camera_front").put("I", height, width).string(encoding).put("B", 0)
    return body.put("I", step or width * channels).raw(pixels.tobytes()).bytes()


def cloud(count: int = 100) -> tuple[bytes, np.ndarray]:
    points = np.zeros(count, dtype=POINT)
    random = np.random.default_rng(count)
    for name in POINT.names or ():
        points[name] = random.normal(0, 20, count)
    return ros2.point_cloud2(1, "lidar", points), points


def test_images() -> None:
    pixels = picture()
    expected = image_summary(pixels)
    assert values_of("camera", IMAGE, raw_image(pixels))[1:5] == pytest.approx(expected, abs=0)
    rgba = values_of("camera", COMPRESSED, compressed(png(pixels)))
    opaque = np.concatenate([pixels, np.full((40, 64, 1), 255, dtype=np.uint8)], axis=2)
    assert rgba[1:5] == pytest.approx(image_summary(opaque), abs=0)


def test_a_summary_says_what_it_should() -> None:
    half = np.zeros((10, 20, 3), dtype=np.uint8)
    half[:, 10:] = 255
    light, contrast, sharpness, saturated = image_summary(half)
    assert (light, contrast, saturated) == (0.5, 0.5, 0.5)
    assert sharpness == pytest.approx(1 / 19)


def test_clouds() -> None:
    message, points = cloud()
    columns = [points[name].astype(np.float64) for name in ("x", "y", "z", "intensity")]
    values = values_of("lidar", CLOUD, message)
    assert values[1:6].tolist() == list(cloud_summary(*columns))
    ranges = np.sqrt(sum(column**2 for column in columns[:3]))
    assert values[1] == 100
    assert values[2] == pytest.approx(ranges.mean())
    assert values[3] == pytest.approx(np.quantile(ranges, 0.95), abs=1.5)
    assert values[4] == pytest.approx((ranges < 5).mean())


def test_points_that_are_none_do_not_count() -> None:
    x = np.array([1.0, np.nan, np.inf, 0.0])
    assert cloud_summary(x, np.zeros(4), np.zeros(4), np.zeros(0))[:2] == (1.0, 1.0)


def test_radar_images() -> None:
    pixels = np.zeros((8, 8, 1), dtype=np.uint8)
    pixels[1:3, 1:3] = 255
    pixels[6, 6] = 128
    returns, _, _, alone, intensity = radar_summary(pixels)
    assert (returns, alone) == (5.0, 0.2)
    assert intensity == pytest.approx((4 * 255 + 128) / 5 / 255)
    assert values_of("radar", IMAGE, raw_image(pixels, "mono8"))[1] == 5.0


def test_what_is_of_another_sensor_is_no_content_of_its_own() -> None:
    """A radar's picture without velocities is no sweep either: a map of the town may look like it."""
    messages = {
        "points": (CLOUD, cloud()[0]),
        "rgb": (IMAGE, raw_image(picture())),
        "grey": (IMAGE, raw_image(picture()[..., :1], "mono8")),
    }
    taken = {
        source: [name for name, message in messages.items() if decode(source, *message).content is not None]
        for source in ("camera", "lidar", "radar")
    }
    assert taken == {"camera": ["rgb", "grey"], "lidar": ["points"], "radar": ["rgb"]}


def test_the_same_content_has_the_same_checksum() -> None:
    one, other = picture(0), picture(1)
    first = values_of("camera", IMAGE, raw_image(one))[0]
    assert (
        first == values_of("camera", IMAGE, raw_image(one.copy()))[0] != values_of("camera", IMAGE, raw_image(other))[0]
    )


@pytest.mark.parametrize(
    "message",
    [
        b"", b"\0\1\0\0", b"\0\0\0\0" + b"x" * 50, compressed(b"jpeg"), compressed(png(picture())[:200]),
        raw_image(picture(), "bayer_rggb8"), raw_image(picture(), step=7),
        compressed(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31)),
    ],
)  # fmt: skip
def test_what_is_not_known_gives_no_number(message: bytes) -> None:
    for kind in (IMAGE, COMPRESSED, CLOUD, "other/msg/Kind"):
        assert np.isnan(values_of("camera", kind, message)[1:]).all()


MESSAGES = [(COMPRESSED, compressed(png(picture()))), (IMAGE, raw_image(picture())), (CLOUD, cloud()[0])]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MESSAGES), st.integers(0, 9000), st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_damaged_messages_cost_nothing_else(message: tuple[str, bytes], cut: int, at: int, noise: bytes) -> None:
    kind, data = message
    damaged = bytearray(data[:cut])
    damaged[at : at + len(noise)] = noise
    for source in ("camera", "radar", "lidar"):
        assert values_of(source, kind, bytes(damaged)).shape == (8,)

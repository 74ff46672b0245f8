"""Cameras of reduced images."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from hypothesis import given
from hypothesis import strategies as st
from nerfstudio.cameras.cameras import Cameras, CameraType

from dietnerf_ns.bench.captures import FewShotCapture, _transforms_of_copy
from dietnerf_ns.semantic.rendering import view_camera, view_rays, window_of
from tests.properties.strategies import floats, generators, looking_poses

sides = st.integers(8, 60)


@st.composite
def cameras(draw):
    """A pinhole camera, shape [1], whose principal point need not be the centre."""
    width, height = draw(sides), draw(sides)
    return Cameras(
        draw(looking_poses(min_size=1, max_size=1)),
        fx=draw(floats(10, 100)),
        fy=draw(floats(10, 100)),
        cx=width * draw(floats(0.3, 0.7)),
        cy=height * draw(floats(0.3, 0.7)),
        width=width,
        height=height,
        camera_type=CameraType.PERSPECTIVE,
    )


def direction(camera: Cameras, place: tuple[float, float]) -> torch.Tensor:
    """Of the ray through a place of the image: (row, column) as fractions of height and width."""
    size = torch.tensor([[float(camera.height[0]), float(camera.width[0])]])
    coords = torch.tensor([place]) * size
    return camera.generate_rays(camera_indices=torch.zeros(1, 1, dtype=torch.long), coords=coords).directions[0]


@given(cameras(), st.integers(4, 60), st.tuples(floats(0, 1), floats(0, 1)))
def test_a_view_of_another_size_shows_the_same(camera, resolution, place):
    """Rays through corresponding places of an image and of its version at another size have the same direction, also
    where the sides do not divide evenly."""
    view = view_camera(camera, camera.camera_to_worlds[0], resolution)
    assert min(int(view.width[0]), int(view.height[0])) == resolution
    assert torch.allclose(direction(view, place), direction(camera, place), atol=1e-4)


@given(cameras(), floats(0.1, 1), generators())
def test_a_crop_consists_of_rays_of_the_view(camera, crop, generator):
    """A random window has the size that `crop` asks for, and each of its rays goes through the pixel of the view that
    it stands for, row by row."""
    window = window_of(camera, generator, crop=crop)
    height, width = int(window.height[0]), int(window.width[0])
    rays = view_rays(window, generator)
    assert height == max(1, round(int(camera.height[0]) * crop)) and width == max(1, round(int(camera.width[0]) * crop))
    assert rays.directions.shape == (height * width, 3)
    local = rays.directions @ camera.camera_to_worlds[0, :, :3]
    columns = -local[:, 0] / local[:, 2] * camera.fx[0] + camera.cx[0]
    rows = local[:, 1] / local[:, 2] * camera.fy[0] + camera.cy[0]
    for places, size, steps in ((rows, height, 0), (columns, width, 1)):
        pixels = places.reshape(height, width)
        inside = pixels - torch.arange(size).unsqueeze(1 - steps)
        start = (inside + 1e-2).floor().min()
        assert start >= 0 and (inside >= start - 1e-2).all() and (inside <= start + 1 + 1e-2).all()
    assert columns.max() <= int(camera.width[0]) + 1e-2 and rows.max() <= int(camera.height[0]) + 1e-2


@given(cameras(), st.data())
def test_a_copy_of_a_capture_shows_the_same(camera, data):
    """A frame of a few-shot copy that is reduced to a width has the field of view of the frame, also where the sides do
    not divide evenly."""
    size = {"w": int(camera.width[0]), "h": int(camera.height[0])}
    focal = {"fl_x": float(camera.fx[0]), "fl_y": float(camera.fy[0])}
    centre = {"cx": float(camera.cx[0]), "cy": float(camera.cy[0])}
    frame = {"file_path": "a.png", "transform_matrix": []}
    capture = FewShotCapture(Path("capture"), size | focal | centre | {"frames": [frame]}, {"test": [Path("a.png")]})
    names = {Path("a.png"): Path("a.png")}
    (copy,) = _transforms_of_copy(capture, names, data.draw(st.integers(4, size["w"])))["frames"]
    small = replace(
        camera,
        **{
            name: torch.full((1, 1), value)
            for name, value in {
                "fx": copy["fl_x"],
                "fy": copy["fl_y"],
                "cx": copy["cx"],
                "cy": copy["cy"],
                "width": copy["w"],
                "height": copy["h"],
            }.items()
        },
    )
    place = (data.draw(floats(0, 1)), data.draw(floats(0, 1)))
    assert json.dumps(copy)
    if copy["h"] > 0:
        assert torch.allclose(direction(small, place), direction(camera, place), atol=1e-4)

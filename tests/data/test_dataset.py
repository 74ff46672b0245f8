import numpy as np
import pytest
import torch
from PIL import Image

from dietnerf_ns.data.contents import fingerprint
from dietnerf_ns.data.dataset import AreaDownscaledDataset
from dietnerf_ns.data.view_selection import keep_views
from dietnerf_ns.utils.images import downscale_by_area, enlarge
from tests.helpers.scenes import blender_outputs


def test_each_pixel_is_the_mean_of_its_area():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    halved = downscale_by_area(image, (2, 2))
    expected = image.reshape(2, 2, 2, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(halved - expected).max() <= 0.5


def test_hidden_colour_leaves_no_fringe_at_a_silhouette():
    image = np.zeros((2, 2, 4), dtype=np.uint8)  # transparent black beside opaque orange
    image[:, 0] = (240, 120, 40, 255)
    pixel = downscale_by_area(image, (1, 1))[0, 0]
    assert pixel.tolist() == [240, 120, 40, 128]
    on_white = pixel[:3] * (pixel[3] / 255) + 255 * (1 - pixel[3] / 255)
    assert np.abs(on_white - (np.array([240, 120, 40]) + 255) / 2).max() < 1, "half orange, half white, nothing darker"


def test_hidden_colour_leaves_no_fringe_when_enlarged():
    image = np.zeros((1, 2, 4), dtype=np.uint8)  # opaque orange beside transparent black
    image[:, 0] = (240, 120, 40, 255)
    enlarged = enlarge(image, (4, 2))
    seen = enlarged[enlarged[..., 3] > 0]
    assert np.abs(seen[:, :3] - np.array([240, 120, 40])).max() <= 1
    assert set(enlarged[0, :, 3].tolist()) == {255, 191, 64, 0}


def test_a_fisheye_s_circle_is_reduced_with_the_photos(tiny_scene):
    outputs = blender_outputs(tiny_scene)
    outputs.cameras.metadata = {"fisheye_crop_radius": 40.0}
    reduced = AreaDownscaledDataset(outputs, scale_factor=0.25).cameras
    assert reduced.metadata["fisheye_crop_radius"] == 10.0 and outputs.cameras.metadata["fisheye_crop_radius"] == 40.0


def test_opaque_alpha_makes_no_other_photo():
    photo = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    with_alpha = np.dstack([photo, np.full((4, 4), 255, np.uint8)])
    assert fingerprint(photo) == fingerprint(with_alpha)
    with_alpha[0, 0, 3] = 254
    assert fingerprint(photo) != fingerprint(with_alpha)


def test_fractional_factors_weight_partly_covered_pixels():
    row = np.array([[0, 90, 180]], dtype=np.uint8)[..., None].repeat(3, axis=2)
    assert downscale_by_area(row, (2, 1))[0, :, 0].tolist() == [30, 150]


def test_dataset_scales_images_and_cameras_together(tiny_scene):
    dataset = AreaDownscaledDataset(blender_outputs(tiny_scene), scale_factor=0.25)
    assert dataset.get_numpy_image(0).shape == (25, 25, 4)
    assert int(dataset.cameras.width[0]) == 25
    assert dataset.cameras.fx.dtype == dataset.cameras.cx.dtype == torch.float32
    full = AreaDownscaledDataset(blender_outputs(tiny_scene))
    assert abs(dataset.get_image_float32(0).mean() - full.get_image_float32(0).mean()) < 2e-3


@pytest.mark.parametrize(("image_type", "largest"), [("float32", 1), ("uint8", 255)])
@pytest.mark.parametrize("alpha_color", [None, torch.ones(3)], ids=["transparent", "blended"])
def test_outside_the_mask_a_photo_has_the_mask_colour_and_is_opaque(
    tiny_scene, tmp_path, image_type, largest, alpha_color
):
    outputs = blender_outputs(tiny_scene)
    outputs.alpha_color = alpha_color
    Image.new("L", (100, 100)).save(tmp_path / "black.png")
    outputs.mask_filenames = [tmp_path / "black.png"] * len(outputs.image_filenames)
    outputs.metadata["mask_color"] = (1.0, 0.0, 1.0)
    image = AreaDownscaledDataset(outputs).get_data(0, image_type)["image"]
    assert image.shape[-1] == (4 if alpha_color is None else 3)
    expected = torch.tensor([largest, 0, largest, largest])[: image.shape[-1]]
    assert (image == expected).all()


def test_dataset_may_be_empty(tiny_scene):
    dataset = AreaDownscaledDataset(keep_views(blender_outputs(tiny_scene), []))
    assert len(dataset) == 0 and not dataset


def test_datasets_of_a_process_do_not_share_what_stays_off_the_device(tiny_scene):
    one, other = (AreaDownscaledDataset(blender_outputs(tiny_scene)) for _ in range(2))
    one.exclude_batch_keys_from_device.remove("mask")
    assert "mask" in other.exclude_batch_keys_from_device

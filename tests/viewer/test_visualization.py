import base64
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from dietnerf_ns.semantic.consistency import SemanticStep, UnseenView
from dietnerf_ns.viewer.visualization import GAP_PX, SemanticVisualization, data_url, gradient_map
from tests.helpers.fakes import bare
from tests.helpers.scenes import blender_outputs

HEIGHT, WIDTH, TARGET = 20, 24, 5


def on_white(image):
    """RGB of an RGBA or RGB image on a white background."""
    return image[..., :3] * image[..., 3:] + 1 - image[..., 3:] if image.shape[-1] == 4 else image


def semantic_step(**values):
    """A step of a model with a coarse and a fine network; some values of the fine render lie outside [0, 1]."""
    renders = torch.linspace(-0.1, 1.1, 2 * 3 * HEIGHT * WIDTH).reshape(2, 3, HEIGHT, WIDTH)
    view = bare(UnseenView, target_index=TARGET)
    return SemanticStep(20, view, renders, similarity=torch.tensor(0.5), loss=torch.tensor(0.05), **values)


@pytest.fixture
def photos(tiny_scene):
    return InputDataset(blender_outputs(tiny_scene))


@pytest.fixture
def visualization(photos):
    return SemanticVisualization(photos, on_white)


def test_image_has_render_photo_and_gradient_side_by_side(visualization, photos):
    gradient = torch.zeros(2, 3, HEIGHT, WIDTH)
    gradient[1, :, 3, 4] = 1e-6
    step = semantic_step(gradient=gradient)
    image = visualization.side_by_side(step)
    assert image.shape == (HEIGHT, WIDTH + HEIGHT + WIDTH + 2 * GAP_PX, 3), "the photo is square"
    assert torch.equal(image[:, :WIDTH].permute(2, 0, 1), step.renders[1].clamp(0, 1))
    photo, shown = on_white(photos.get_image_float32(TARGET)), image[:, WIDTH + GAP_PX : WIDTH + GAP_PX + HEIGHT]
    assert torch.allclose(shown.mean(dim=(0, 1)), photo.mean(dim=(0, 1)), atol=0.01)
    assert torch.equal(image[:, -WIDTH:].permute(2, 0, 1), gradient_map(gradient[1]))
    assert (image[:, WIDTH : WIDTH + GAP_PX] == 1).all()


def test_image_has_no_gradient_before_the_backward_pass(visualization):
    image = visualization.side_by_side(semantic_step(gradient=None))
    assert image.shape == (HEIGHT, WIDTH + HEIGHT + GAP_PX, 3)


def test_image_can_be_enlarged(visualization):
    image = visualization.side_by_side(semantic_step(gradient=None), height=3 * HEIGHT)
    assert image.shape == (3 * HEIGHT, 3 * WIDTH + 3 * HEIGHT + GAP_PX, 3)
    assert (image[:3, :3] == image[0, 0]).all(), "a pixel stays a visible square"


def test_caption_names_the_target_photo(visualization):
    assert "target photo r_5.png" in visualization.caption(semantic_step())


def test_names_of_photos_in_the_caption_are_no_code(visualization, photos):
    photos.image_filenames[TARGET] = Path("a_{1+1}<b>.png")
    assert "target photo a_&#123;1&#43;1&#125;&#60;b&#62;.png," in visualization.caption(semantic_step())


def test_gradient_map_is_black_at_zero_and_brightest_at_the_largest_gradient():
    gradient = torch.zeros(3, 2, 3)
    gradient[:, 0, 1] = torch.tensor([3e-6, 0.0, -4e-6])  # norm 5e-6
    gradient[:, 1, 2] = torch.tensor([0.0, 2.5e-6, 0.0])
    brightness = gradient_map(gradient).sum(0)
    assert brightness.argmax() == 1 and brightness[0, 1] > 2
    assert 0.5 < brightness[1, 2] < 2 and brightness[0, 0] < 0.05
    assert gradient_map(torch.zeros(3, 2, 2)).max() < 0.05


def test_data_url_contains_the_image():
    image = torch.full((16, 24, 3), 0.25)
    kind, content = data_url(image).split(",")
    assert kind == "data:image/jpeg;base64"
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert decoded.shape == (16, 24, 3) and np.abs(decoded / 255 - 0.25).max() < 0.02

import io

import numpy as np
import pytest
import torch
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from PIL import Image

from dietnerf_ns.data.dataset import AreaDownscaledDataset
from dietnerf_ns.data.foreground import (
    PhotoMasks,
    border_color,
    foreground_mask,
    foreground_masks,
    surely_background,
    uniform_background,
)
from tests.helpers.cameras import pinhole_cameras, ring_of_poses


def photo(colour, *, foreground=(0.2, 0.4, 0.6), alpha=None, size=40):
    """A square of the foreground's colour on a background; with alpha it is opaque."""
    image = torch.tensor(colour).expand(size, size, 3).clone()
    inside = slice(size // 4, -size // 4)
    image[inside, inside] = torch.tensor(foreground)
    if alpha is None:
        return image
    opacity = torch.full((size, size, 1), alpha)
    opacity[inside, inside] = 1.0
    return torch.cat([image, opacity], dim=-1)


def test_the_colour_around_all_objects_is_found():
    photos = [photo((0.9, 0.5, 0.1), foreground=(shade,) * 3) for shade in (0.1, 0.5)]
    noisy = [image + 0.01 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)) for image in photos]
    assert torch.allclose(border_color(photos), torch.tensor([0.9, 0.5, 0.1]))
    assert torch.allclose(border_color(noisy), torch.tensor([0.9, 0.5, 0.1]), atol=0.01)


def test_an_object_may_touch_the_border_in_places():
    image = photo((1.0, 1.0, 1.0))
    image[-1, 10:20] = 0.3  # 10 of 160
    assert border_color([image]) is not None
    image[-3:, :] = image[:, :3] = 0.3
    assert border_color([image]) is None


def test_two_backgrounds_are_not_one():
    assert border_color([photo((1.0, 1.0, 1.0)), photo((0.8, 0.8, 0.8))]) is None
    assert border_color([torch.rand(40, 40, 3)]) is None


def test_transparent_borders_are_white_whatever_they_hide():
    assert border_color([photo((0.0, 0.3, 0.0), alpha=0.0)]).tolist() == [1.0, 1.0, 1.0]
    opaque = photo((0.0, 0.3, 0.0), alpha=1.0)
    assert torch.allclose(border_color([opaque]), torch.tensor([0.0, 0.3, 0.0]))


def test_a_transparent_photo_agrees_with_the_colour_of_opaque_ones():
    opaque, transparent = photo((0.0, 0.3, 0.0), alpha=1.0), photo((1.0, 1.0, 1.0), alpha=0.0)
    assert torch.allclose(border_color([opaque, transparent]), torch.tensor([0.0, 0.3, 0.0]))
    cut = transparent.clone()
    cut[0] = torch.tensor([1.0, 0.0, 0.0, 1.0])  # an object that reaches the border of the photo
    assert border_color([opaque, cut]) is None


def test_at_most_twenty_photos_of_a_dataset_are_read():
    class Photos(InputDataset):
        read = []

        def __init__(self):
            pass

        def __len__(self):
            return 100

        def get_image_float32(self, index):
            self.read.append(index)
            return photo((1.0, 1.0, 1.0))

    assert uniform_background(Photos()).tolist() == [1.0, 1.0, 1.0]
    assert Photos.read == list(range(0, 100, 5))


def test_what_differs_from_the_background_stands_out():
    image = photo((1.0, 0.5, 0.0), foreground=(1.0, 0.5, 0.06))
    assert int(foreground_mask(image, torch.tensor([1.0, 0.5, 0.0])).sum()) == 20 * 20
    assert not foreground_mask(photo((1.0, 0.5, 0.0), foreground=(0.96, 0.5, 0.0)), torch.tensor([1.0, 0.5, 0.0])).any()
    opaque = photo((1.0, 0.5, 0.0), foreground=(1.0, 0.5, 0.06), alpha=1.0)
    assert int(foreground_mask(opaque, torch.tensor([1.0, 0.5, 0.0])).sum()) == 20 * 20


def test_what_is_cut_out_stands_out_even_if_it_is_white():
    cut_out = photo((0.0, 0.0, 0.0), foreground=(1.0, 1.0, 1.0), alpha=0.0)
    assert int(foreground_mask(cut_out, torch.ones(3)).sum()) == 20 * 20


def test_transparency_counts_although_the_dataparser_puts_photos_on_white(tmp_path):
    image = (photo((0.0, 0.0, 0.0), foreground=(1.0, 1.0, 1.0), alpha=0.0) * 255).byte().numpy()
    Image.fromarray(image).save(tmp_path / "photo.png")
    cameras = pinhole_cameras(ring_of_poses(1), width=40, height=40)
    outputs = DataparserOutputs([tmp_path / "photo.png"], cameras, alpha_color=torch.ones(3))
    dataset = AreaDownscaledDataset(outputs)
    assert dataset.get_image_float32(0).min() == 1.0
    (foreground,) = foreground_masks(dataset, torch.ones(3))
    assert int(foreground.sum()) == 20 * 20


def compressed(image, quality):
    """An RGB photo in [0, 1] as JPEG gives it back."""
    file = io.BytesIO()
    Image.fromarray((image * 255).round().byte().numpy()).save(file, format="JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))) / 255


def bounds(mask):
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    return torch.stack([rows[0], rows[-1], columns[0], columns[-1]])


@pytest.mark.parametrize("quality", [75, 85, 95])
def test_ringing_of_jpeg_is_no_foreground(quality, tiny_scene):
    for path in sorted((tiny_scene / "train").iterdir()):
        image = torch.from_numpy(np.array(Image.open(path).convert("RGBA"))) / 255
        on_white = image[..., :3] * image[..., 3:] + 1 - image[..., 3:]
        exact = foreground_mask(on_white, torch.ones(3))
        assert torch.equal(exact, ((on_white - 1).abs() > 0.05).any(-1)), "without noise nothing is left out"
        found = foreground_mask(compressed(on_white, quality), torch.ones(3))
        assert (bounds(found) - bounds(exact)).abs().max() <= 2
        assert (found & exact).sum() > 0.97 * exact.sum()


def test_a_pale_part_of_an_object_stands_out_in_a_jpeg():
    image = photo((1.0, 1.0, 1.0), size=80)
    image[24:36, 62:74] = 0.9
    found = foreground_mask(compressed(image, 75), torch.ones(3))
    assert found[26:34, 64:72].all()


def test_what_an_object_encloses_or_touches_is_not_surely_background():
    image, grey = torch.full((20, 20, 3), 0.5), torch.full((3,), 0.5)
    image[5:15, 5:15] = 0.9
    image[8:12, 8:12] = 0.5  # enclosed
    background = surely_background(image, grey)
    assert not background[4:16, 4:16].any()
    background[4:16, 4:16] = True
    assert background.all()
    assert not surely_background(torch.ones(5, 5, 3), grey).any()
    assert surely_background(torch.full((5, 5, 4), 0.52), grey).all()


def test_a_thin_pale_part_in_a_jpeg_is_not_surely_background():
    image = photo((1.0, 1.0, 1.0), size=80)
    image[:, 70:74] = 0.9
    blurred = compressed(image, 75)
    assert not foreground_mask(blurred, torch.ones(3))[:, 72].all(), "it may be noise"
    assert not surely_background(blurred, torch.ones(3))[:, 71:73].any()


def test_masks_of_photos_of_two_sizes_are_looked_up_by_photo_row_and_column():
    masks = [torch.rand(3, 5) < 0.5, torch.rand(4, 2) < 0.5]
    pixels = [(0, 2, 4), (1, 3, 1), (1, 0, 0), (0, 0, 0), (0, 1, 2)]
    found = PhotoMasks(masks).at(torch.tensor(pixels))
    assert found.flatten().tolist() == [bool(masks[photo][row, column]) for photo, row, column in pixels]
    assert found.shape == (5, 1)

"""Objects cut out of photos: rembg itself, with a network of one operation in place of U2-Net."""

import base64
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dietnerf_ns.poses.cutout import Network
from dietnerf_ns.utils.errors import UserError

MEAN_OF_CHANNELS = (
    "CAgSADp1CjAKAXgSAXkiClJlZHVjZU1lYW4qCwoEYXhlc0ABoAEHKg8KCGtlZXBkaW1zGAGgAQISAWdaHgoBeBIZChcIARITCgMSAWIKAggDCgMI"
    "wAIKAwjAAmIeCgF5EhkKFwgBEhMKAxIBYgoCCAEKAwjAAgoDCMACQgQKABAN"
)
"""An ONNX file: 3 x 320 x 320 to 1 x 320 x 320."""


def without_weights(name):
    raise OSError("no network")


@pytest.mark.parametrize(
    ("package", "message"),
    [
        (None, "--cutout: needs --masks, or the package rembg: pip install"),
        (
            SimpleNamespace(new_session=without_weights),
            r"weights of rembg could not be loaded \(OSError\).*u2net",
        ),
    ],
    ids=["not installed", "without a network"],
)
def test_what_is_missing_is_said(monkeypatch, package, message):
    monkeypatch.setitem(sys.modules, "rembg", package)
    with pytest.raises(UserError, match=message):
        Network().load()


@pytest.fixture
def images(tmp_path):
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[30:90, 40:120] = 255
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.jpg")
    return tmp_path / "images"


@pytest.mark.slow
def test_the_network_says_what_is_cut_out(images, tmp_path, monkeypatch):
    pytest.importorskip("rembg", exc_type=ImportError)
    (tmp_path / "u2net.onnx").write_bytes(base64.b64decode(MEAN_OF_CHANNELS))
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setenv("MODEL_CHECKSUM_DISABLED", "1")
    mask = Network().foregrounds(images, ["a.jpg"])["a.jpg"]
    assert mask.shape == (120, 160) and mask.mean() == pytest.approx(0.25, abs=0.01)
    assert mask[60, 80] and not mask[5, 5]


@pytest.mark.slow
def test_weights_that_cannot_be_read_end_in_one_line(tmp_path, monkeypatch):
    pytest.importorskip("rembg", exc_type=ImportError)
    (tmp_path / "u2net.onnx").write_bytes(b"no network")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setenv("MODEL_CHECKSUM_DISABLED", "1")
    with pytest.raises(UserError, match=r"weights of rembg could not be loaded.*copy u2net.onnx"):
        Network().load()

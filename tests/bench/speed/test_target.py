import math

import torch

from dietnerf_ns.bench.speed.target import PIXELS, psnr_of, sample_test_pixels, time_to_psnr


def test_training_stops_when_the_psnr_is_reached(small_without_lsc, data, tmp_path):
    result = time_to_psnr(small_without_lsc, data, tmp_path, psnr=3.0, max_seconds=60, seconds_between=0.01)
    assert result["seconds"] == result["curve"][-1][0] < 60 and result["steps"] == result["curve"][-1][1]
    assert result["curve"][-1][2] >= 3.0


def test_training_stops_when_the_time_is_over(small_without_lsc, data, tmp_path):
    result = time_to_psnr(small_without_lsc, data, tmp_path, psnr=99.0, max_seconds=0.5, seconds_between=0.2)
    assert result["seconds"] is None and result["steps"] is None
    times = [seconds for seconds, _, _ in result["curve"]]
    assert len(times) == 3 and 0.5 <= times[-1] < 5 and times == sorted(times)


def test_psnr_is_of_pixels_of_the_test_views(small_without_lsc, data, tmp_path):
    trainer = small_without_lsc.trainer(data, tmp_path)
    rays, colours = sample_test_pixels(trainer)
    photos = trainer.pipeline.datamanager.eval_dataset
    assert colours.shape == (PIXELS, 3) and len(set(rays.camera_indices.flatten().tolist())) == len(photos)
    index = int(rays.camera_indices[0])
    camera = photos.cameras[index : index + 1]
    image = photos.get_image_float32(index)
    matching = (image.reshape(-1, 3) - colours[0]).abs().sum(dim=-1).argmin()
    centre = torch.tensor([[matching // image.shape[1], matching % image.shape[1]]]) + 0.5
    same = (image.reshape(-1, 3) == colours[0]).all(dim=-1)
    if same.sum() == 1:
        ray = camera.generate_rays(camera_indices=torch.zeros(1, 1, dtype=torch.long), coords=centre)
        assert torch.allclose(ray.directions[0], rays.directions[0], atol=1e-5)
    trainer.pipeline.model.forward = lambda bundle: {"rgb": torch.full((len(bundle), 3), 0.5)}
    expected = -10 * math.log10(float((colours - 0.5).square().mean()))
    assert abs(psnr_of(trainer, rays, colours) - expected) < 1e-4
    trainer.pipeline.model.forward = lambda bundle: {"rgb_coarse": None, "rgb_fine": torch.full((len(bundle), 3), 0.5)}
    assert abs(psnr_of(trainer, rays, colours) - expected) < 1e-4, "mipnerf"
    assert trainer.pipeline.model.training

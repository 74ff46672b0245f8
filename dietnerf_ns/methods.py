"""The registered methods: every learning rate and step count is here."""

from __future__ import annotations

from pathlib import Path

import torch
from nerfstudio.configs.base_config import MachineConfig, ViewerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParserConfig
from nerfstudio.data.dataparsers.blender_dataparser import BlenderDataParserConfig
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.pixel_samplers import PixelSamplerConfig
from nerfstudio.models.base_model import ModelConfig
from nerfstudio.plugins.types import MethodSpecification

from dietnerf_ns.data.datamanager import FewShotDataManagerConfig
from dietnerf_ns.data.pixel_samplers import ForegroundPixelSamplerConfig, SinglePhotoPixelSamplerConfig
from dietnerf_ns.models.nerfacto import DietNeRFModelConfig
from dietnerf_ns.models.vanilla import DietVanillaModelConfig
from dietnerf_ns.pipeline import DietNeRFPipelineConfig
from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.semantic_method import VIEWER_HOST
from dietnerf_ns.training.checkpoints import register_old_class_paths
from dietnerf_ns.training.optimizers import DecayOverRunConfig, FusedAdamConfig
from dietnerf_ns.training.trainer import SafeTrainerConfig
from dietnerf_ns.utils.compat import allow_numpy_scalars_in_checkpoints

allow_numpy_scalars_in_checkpoints()
register_old_class_paths()

TINY_SCENE = Path(__file__).parent / "assets" / "tiny_scene"


def _adam(lr: float, final_lr: float, eps: float = 1e-15) -> dict:
    """Adam whose learning rate has decayed to the final one at the end of the run, however long that is."""
    return {"optimizer": FusedAdamConfig(lr=lr, eps=eps), "scheduler": DecayOverRunConfig(lr_final=final_lr)}


def _method(
    name: str,
    description: str,
    *,
    model: ModelConfig,
    semantic: SemanticConfig,
    dataparser: DataParserConfig,
    optimizers: dict,
    rays: int,
    steps: int | None = None,
    mixed_precision: bool = True,
    steps_per_save: int = 2000,
    steps_per_eval_image: int = 500,
    viewer: ViewerConfig | None = None,
    pixel_sampler: PixelSamplerConfig | None = None,
) -> MethodSpecification:
    """A method with what all have in common: few-shot data, the DietNeRF pipeline, the best device, the viewer."""
    pipeline = DietNeRFPipelineConfig(
        datamanager=FewShotDataManagerConfig(
            dataparser=dataparser,
            train_num_rays_per_batch=rays,
            eval_num_rays_per_batch=rays,
            pixel_sampler=pixel_sampler or ForegroundPixelSamplerConfig(),
        ),
        model=model,
        semantic=semantic,
    )
    config = SafeTrainerConfig(
        method_name=name,
        machine=MachineConfig(device_type="cuda" if torch.cuda.is_available() else "cpu"),
        max_num_iterations=steps,
        steps_per_save=steps_per_save,
        steps_per_eval_batch=500,
        steps_per_eval_image=steps_per_eval_image,
        mixed_precision=mixed_precision,
        pipeline=pipeline,
        optimizers=optimizers,
        viewer=viewer or ViewerConfig(websocket_host=VIEWER_HOST, num_rays_per_chunk=1 << 15),
        vis="viewer+tensorboard",
    )
    return MethodSpecification(config=config, description=description)


dietnerf = _method(
    "dietnerf",
    "Few-shot nerfacto with CLIP's semantic consistency loss on unseen views (DietNeRF).",
    model=DietNeRFModelConfig(eval_num_rays_per_chunk=1 << 15),
    semantic=SemanticConfig(rays_per_chunk=1 << 15),  # the whole view; smaller chunks do not fill a GPU
    dataparser=NerfstudioDataParserConfig(),
    optimizers={
        "proposal_networks": _adam(1e-2, 1e-4),
        "fields": _adam(1e-2, 1e-4),
        "plane_generator": _adam(3e-3, 3e-4),
        "camera_opt": _adam(1e-3, 1e-4),
    },
    steps=10_000,
    rays=4096,
)

dietnerf_vanilla = _method(
    "dietnerf-vanilla",
    "DietNeRF as in the paper: coarse and fine 8x256 MLPs on NeRF-Synthetic scenes; slow.",
    model=DietVanillaModelConfig(),
    # The constants of the paper's released code; the last fifth is its L_MSE fine-tuning, 200k + 50k steps.
    semantic=SemanticConfig(
        max_gradient_ratio=0,
        resolution=200,  # with the crop 168 rays a side, through every second of 400 pixels
        crop=0.84,
        sample_fraction=1.0,
        embedding="class-token",
        poses="sphere",
        theta_range=(-180.0, 180.0),
        phi_range=(0.0, 90.0),
        radius_range=(3.5, 4.5),
    ),
    dataparser=BlenderDataParserConfig(),
    pixel_sampler=SinglePhotoPixelSamplerConfig(),
    optimizers={
        # A tenth in 500k steps, of which the run is half.
        "fields": _adam(5e-4, 5e-4 * 0.1**0.5, eps=1e-8),
        "temporal_distortion": _adam(5e-4, 5e-4 * 0.1**0.5, eps=1e-8),
    },
    steps=250_000,
    rays=1024,
    mixed_precision=False,
    steps_per_save=5_000,
)

dietnerf_tiny = _method(
    "dietnerf-tiny",
    "DietNeRF in minutes on a CPU, on a scene that comes with it; no download.",
    model=DietNeRFModelConfig(
        members="auto",
        num_proposal_iterations=1,
        num_proposal_samples_per_ray=(64,),
        num_nerf_samples_per_ray=32,
        proposal_warmup=500,
        proposal_weights_anneal_max_num_iters=200,
        implementation="torch",
        eval_num_rays_per_chunk=1 << 11,
    ),
    # The embedded encoder distinguishes views of one object, so that a random photo is the wrong target. On validation
    # views of lego a larger gradient cost PSNR.
    semantic=SemanticConfig(
        encoder="embedded", target="nearest", max_gradient_ratio=0.03, resolution=56, every=20, rays_per_chunk=1 << 12
    ),
    dataparser=BlenderDataParserConfig(data=TINY_SCENE),
    optimizers={
        "proposal_networks": _adam(4e-2, 1.2e-3),
        "fields": _adam(4e-2, 1.2e-3),
        "plane_generator": _adam(3e-3, 3e-4),
        "camera_opt": _adam(1e-3, 1e-4),
    },
    rays=640,
    mixed_precision=False,
    steps_per_save=400,
    steps_per_eval_image=25_000,  # never in these short runs: the LPIPS of an image would download its backbone
    viewer=ViewerConfig(websocket_host=VIEWER_HOST, num_rays_per_chunk=1 << 11, quit_on_train_completion=True),
)

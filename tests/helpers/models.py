"""A small model, the rays of a view, and a count of the memory that stays allocated."""

import gc
import weakref

import torch
from nerfstudio.data.scene_box import SceneBox
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from dietnerf_ns.models.nerfacto import DietNeRFModel, DietNeRFModelConfig
from dietnerf_ns.semantic.rendering import view_camera, view_rays
from tests.helpers.cameras import pinhole_cameras, ring_of_poses

BOX = SceneBox(torch.tensor([[-1.5] * 3, [1.5] * 3]))


def tiny_model(seed=0, **settings):
    """A small model of the real class; float64 so that gradients can be compared to many digits."""
    torch.manual_seed(seed)
    small = {
        "field": "free-planes",
        "plane_resolution": 8,
        "plane_levels": 1,
        "plane_channels": 2,
        "hidden_dim": 16,
        "hidden_dim_color": 16,
        "num_proposal_iterations": 1,
        "num_proposal_samples_per_ray": (8,),
        "num_nerf_samples_per_ray": 8,
        "near_plane": 2.0,
        "far_plane": 6.0,
        "background_color": "white",
        "disable_scene_contraction": True,
        "average_init_density": 1.0,
        "proposal_initial_sampler": "uniform",
        "implementation": "torch",
    }
    config = DietNeRFModelConfig(**(small | settings))
    return config.setup(scene_box=BOX, num_train_data=3, metadata={}, device="cpu")


def sample_every_ray(monkeypatch):
    """Rays that hit nothing get samples, too."""
    monkeypatch.setattr(DietNeRFModel, "_can_skip", lambda self, rays: False)


def slopes_along_gradient(loss, parameter, *, change):
    """How fast a loss rises along its gradient with respect to a parameter: by autograd, and by finite differences.

    `change` is that of the loss on either side, in which the second one is taken.
    """
    (gradient,) = torch.autograd.grad(loss(), parameter)
    norm = float(gradient.norm())
    values, step = [], change / norm
    for distance in (step, -step):
        with torch.no_grad():
            parameter += distance * gradient / norm
            values.append(loss())
            parameter -= distance * gradient / norm
    return norm, float((values[0] - values[1]) / (2 * step))


def rays_of_a_view(resolution=9):
    reference = pinhole_cameras(ring_of_poses(1))[0:1]
    camera = view_camera(reference, ring_of_poses(5)[2], resolution)
    return view_rays(camera, torch.Generator().manual_seed(1)), (int(camera.height[0]), int(camera.width[0]))


class Storages(TorchDispatchMode):
    """Every storage that an operation returns, and how much of it is still alive."""

    def __init__(self):
        super().__init__()
        self.seen = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self.seen[reference.cdata] = (reference, storage.nbytes())
        return result

    def numbers_alive(self):
        gc.collect()
        return sum(size for reference, size in self.seen.values() if not reference.expired()) // 4


class KeepsActivationsByItself(torch.nn.Module):
    """Squares its input like tinycudann computes: activations are kept in the node's context, unseen by autograd.

    They live as long as the node; `kept` has a weak reference to each.
    """

    def __init__(self):
        super().__init__()
        self.kept = []

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, values, kept):
            ctx.native = values.clone()
            kept.append(weakref.ref(ctx.native))
            return values * values

        @staticmethod
        def backward(ctx, gradient):
            return 2 * ctx.native * gradient, None

    def forward(self, values):
        return self.Function.apply(values, self.kept)

    def number_alive(self):
        return sum(activations() is not None for activations in self.kept)

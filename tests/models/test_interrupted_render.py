"""nerfstudio's viewer interrupts a render of the model in training by an exception, at any line of Python."""

import contextlib

import pytest
import torch
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer_legacy.server.viewer_utils import IOChangeException, SetTrace

from tests.helpers.cameras import pinhole_cameras, ring_of_poses
from tests.helpers.models import tiny_model

TRACED = ("nerfstudio.", "dietnerf_ns.", "contextlib", "concurrent.")  # modules, not those that check types in tests
SIMPLE = (int, float, str, tuple, list, type(None))


class Interrupting(RenderStateMachine):
    """The viewer's machine, whose flag is set at one of the lines that are traced; without a viewer."""

    def __init__(self, at_line=None):
        self.at_line = at_line
        self.lines = []

    def check_interrupt(self, frame, event, arg):
        module = frame.f_globals.get("__name__", "")
        if event == "line" and module.startswith(TRACED):
            self.interrupt_render_flag = len(self.lines) == self.at_line
            self.lines.append(f"{module}:{frame.f_lineno}")
            super().check_interrupt(frame, event, arg)
        return self.check_interrupt

    def render(self, model, camera):
        """As nerfstudio's own `_render_img` does."""
        with contextlib.suppress(IOChangeException), torch.no_grad(), SetTrace(self.check_interrupt):
            model.get_outputs_for_camera(camera)
            return True
        return False


def settings_of(model):
    """What decides how the model renders, but for the grids that it keeps for the next image."""
    return [
        {name: value for name, value in vars(module).items() if isinstance(value, SIMPLE) and "_grid" not in name}
        for module in model.modules()
    ] + [torch.get_num_threads()]


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_an_interrupted_render_leaves_the_settings_of_training():
    model = tiny_model(members=2, eval_num_rays_per_chunk=16).eval()
    camera = pinhole_cameras(ring_of_poses(5)[2:3], width=8, height=8, focal=10.0)[0:1]
    whole = Interrupting()
    assert whole.render(model, camera)
    before, interrupted = settings_of(model), 0
    allowed = [i for i, line in enumerate(whole.lines) if line.startswith(("nerfstudio.", "concurrent."))]
    others = [i for i in range(len(whole.lines)) if i not in allowed]
    assert len(allowed) > 30
    for i in (*others, *allowed[:: len(allowed) // 10]):
        interrupted += not Interrupting(at_line=i).render(model, camera)
        assert settings_of(model) == before, f"interrupted at {whole.lines[i]}"
    assert interrupted > 8

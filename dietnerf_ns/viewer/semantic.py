"""The panel's part about the semantic loss: what a running training sees, and controls that act on it."""

from __future__ import annotations

import time

from jaxtyping import Float
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from dietnerf_ns.semantic.consistency import SemanticConfig, SemanticConsistency, SemanticStep
from dietnerf_ns.viewer.browser_cameras import BrowserCameras
from dietnerf_ns.viewer.curves import TrainingCurves
from dietnerf_ns.viewer.elements import Checkbox, Folder, Markdown, Plot, Slider
from dietnerf_ns.viewer.frusta import SemanticFrusta
from dietnerf_ns.viewer.orbit import orbit_sphere, start_of_orbit
from dietnerf_ns.viewer.visualization import SemanticVisualization, data_url

REFRESH_SECONDS = 1.0
PICTURE_HEIGHT_PX = 160
FRUSTUM_PER_RADIUS = 0.03
NO_SEMANTIC_LOSS = "This run has no semantic loss: its weight is 0, and no encoder is loaded."


class SemanticFolder(Folder):
    """Shows the last semantic view, curves and poses to connected browsers; pauses and changes the loss.

    Args:
        semantic: of the training.
        photos: the kept training views.
        clients: the connected browsers; nothing is drawn while there are none.
    """

    def __init__(self, semantic: SemanticConsistency, photos: InputDataset, clients: BrowserCameras):
        super().__init__()
        self._semantic, self._clients = semantic, clients
        self._pictures: SemanticVisualization | None = None
        self._curves = TrainingCurves()
        camera_to_worlds = photos.cameras.camera_to_worlds.cpu()
        *_, radius = start_of_orbit(camera_to_worlds, orbit_sphere(camera_to_worlds))
        self._frusta = SemanticFrusta(photos.cameras[0:1].to("cpu"), size=FRUSTUM_PER_RADIUS * radius)
        self._next_refresh = 0.0
        self._pictured: SemanticStep | None = None
        self._make_elements(semantic.config)

    def _make_elements(self, config: SemanticConfig) -> None:
        off = config.weight == 0
        most, longest = 10 * config.weight or 1.0, max(100, config.every)
        self._status = Markdown(NO_SEMANTIC_LOSS if off else "No semantic view yet.")
        self._picture = Markdown()
        self._plot = Plot(self._curves.figure, aspect=0.7)
        self._pause = Checkbox("Pause L_sc", False, disabled=off, cb_hook=self._change)
        self._weight = Slider("lambda", config.weight, 0.0, most, most / 200, disabled=off, cb_hook=self._change)
        self._every = Slider("every K steps", config.every, 1, longest, 1, disabled=off, cb_hook=self._change)
        self._show_poses = Checkbox(
            "Show semantic poses", True, disabled=off, cb_hook=lambda box: self._frusta.set_visible(box.value)
        )
        self.show(self._status, self._picture, self._plot, self._pause, self._weight, self._every, self._show_poses)

    def _change(self, _) -> None:
        self._semantic.paused = self._pause.value
        self._semantic.reconfigure(weight=self._weight.value, every=self._every.value)

    def start(self, pictures: SemanticVisualization) -> None:
        """Training starts; the semantic loss is prepared.

        Args:
            pictures: draws semantic steps.
        """
        self._pictures = pictures

    def after_step(self, step: int, *, mse: Float[Tensor, ""]) -> None:
        """Note what a training step did, and show it if it is time and somebody looks.

        Args:
            step: of the run.
            mse: mean squared error of the step's training rays, RGB in [0, 1].
        """
        last = self._semantic.last
        if last is not None and last.step == step:
            self._frusta.add(last.view.camera_to_world)
        is_active = last is not None and self._semantic.is_active(step)
        self._curves.add(step, mse=mse, semantic_loss=last.loss if is_active else None)
        now = time.monotonic()
        if now >= self._next_refresh:
            self._next_refresh = now + REFRESH_SECONDS
            if self._clients.connected():
                self._refresh(step)

    def end(self, step: int) -> None:
        """Say that training has ended at this step; nothing can be changed any more."""
        self._status.update(f"Training has ended at step {step}. {self._status.content}")
        for control in (self._pause, self._weight, self._every):
            control.set_disabled(True)

    def _refresh(self, step: int) -> None:
        self._plot.redraw()
        self._frusta.draw(self._clients.viser_server)
        last = self._semantic.last
        if last is None:
            return
        state = " L_sc is paused." if self._semantic.paused else ""
        self._status.update(
            f"Step {step}. Last semantic step {last.step}: L_sc {float(last.loss):.4f}, "
            f"similarity {float(last.similarity):.3f}.{state}"
        )
        if last is not self._pictured:
            self._pictured = last
            picture = data_url(self._pictures.side_by_side(last, height=PICTURE_HEIGHT_PX))
            # A picture in Markdown's own notation is at most 240 pixels wide in viser.
            self._picture.update(f'<img src="{picture}" width="100%" />\n\n{self._pictures.caption(last)}')

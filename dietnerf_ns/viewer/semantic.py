"""The panel's folder about the semantic loss: what a running training sees, and controls that act on it."""

from __future__ import annotations

import threading
import time

from jaxtyping import Float
from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import Tensor

from dietnerf_ns.semantic.consistency import SemanticConfig, SemanticConsistency, SemanticStep
from dietnerf_ns.utils.distributed import is_one_of_several
from dietnerf_ns.viewer.browser_cameras import BrowserCameras
from dietnerf_ns.viewer.curves import TrainingCurves
from dietnerf_ns.viewer.elements import Checkbox, Folder, Markdown, Plot, Slider, escaped
from dietnerf_ns.viewer.frusta import SemanticFrusta
from dietnerf_ns.viewer.orbit import orbit_sphere, start_of_orbit
from dietnerf_ns.viewer.visualization import SemanticVisualization, data_url

REFRESH_SECONDS = 1.0
IMAGE_HEIGHT_PX = 160
FRUSTUM_PER_RADIUS = 0.03
SEVERAL_PROCESSES = "Several processes train together: the loss cannot be changed meanwhile."
NO_SEMANTIC_LOSS = "This run has no semantic loss: its weight is 0, and no encoder is loaded."


class SemanticFolder(Folder):
    """Shows the last semantic view, curves and poses to connected browsers; pauses and changes the loss.

    Processes that train together must agree on the loss, and one alone has the viewer: nothing can be changed then.

    Args:
        config: settings of the loss.
        photos: the kept training views.
        browser_cameras: the connected browsers; nothing is drawn while there are none.
    """

    def __init__(self, config: SemanticConfig, photos: InputDataset, browser_cameras: BrowserCameras):
        super().__init__()
        self._browser_cameras = browser_cameras
        self._semantic: SemanticConsistency | None = None
        self._visualization: SemanticVisualization | None = None
        self._curves = TrainingCurves()
        camera_to_worlds = photos.cameras.camera_to_worlds.cpu()
        *_, radius = start_of_orbit(camera_to_worlds, orbit_sphere(camera_to_worlds))
        self.frusta = SemanticFrusta(size=FRUSTUM_PER_RADIUS * radius)
        self._adjustable = config.weight > 0 and not is_one_of_several()
        self._lock = threading.Lock()
        self._next_refresh = 0.0
        self._shown: SemanticStep | None = None
        self._make_elements(config)

    def _make_elements(self, config: SemanticConfig) -> None:
        off, fixed = config.weight == 0, not self._adjustable
        most, longest = 10 * config.weight or 1.0, max(100, config.every)
        self._status = Markdown(NO_SEMANTIC_LOSS if off else "No semantic view yet.")
        self._image = Markdown()
        self._plot = Plot(self._curves.figure, aspect=0.7)
        self._pause = Checkbox("Pause L_sc", False, disabled=fixed, cb_hook=self._change)
        self._weight = Slider("lambda", config.weight, 0.0, most, most / 200, disabled=fixed, cb_hook=self._change)
        self._every = Slider("every K steps", config.every, 1, longest, 1, disabled=fixed, cb_hook=self._change)
        self._show_poses = Checkbox(
            "Show semantic poses", True, disabled=off, cb_hook=lambda box: self.frusta.set_visible(box.value)
        )
        note = [Markdown(SEVERAL_PROCESSES)] if is_one_of_several() else []
        self.show(
            self._status, *note, self._image, self._plot, self._pause, self._weight, self._every, self._show_poses
        )

    def attach(self, semantic: SemanticConsistency, visualization: SemanticVisualization) -> None:
        """Training starts: show this loss, and let the controls act on it.

        Args:
            semantic: the loss; it takes the values that the controls have now.
            visualization: draws semantic steps.
        """
        self._semantic, self._visualization = semantic, visualization
        self._change(None)

    def _change(self, _) -> None:
        with self._lock:  # viser runs callbacks in parallel; the last change must use the latest values
            if self._semantic is not None and self._adjustable:
                self._semantic.paused = self._pause.value
                self._semantic.reconfigure(weight=self._weight.value, every=self._every.value)

    def after_step(self, step: int, *, mse: Float[Tensor, ""]) -> None:
        """Record what a training step did, and show it if a second has passed and a browser is connected.

        Args:
            step: step of the run.
            mse: mean squared error of the step's training rays, RGB in [0, 1].
        """
        last = None if self._semantic is None else self._semantic.last
        if last is not None and last.step == step:
            self.frusta.add(last.view.whole)
        is_active = self._semantic is not None and self._semantic.is_active(step)
        self._curves.add(step, mse=mse, semantic_loss=last.loss if last is not None and is_active else None)
        now = time.monotonic()
        if now >= self._next_refresh:
            self._next_refresh = now + REFRESH_SECONDS
            self.refresh(step)

    def refresh(self, step: int) -> None:
        """Show the present state at a step of the run to the connected browsers, if there are any."""
        if self._browser_cameras.connected():
            self._draw(step)

    def _draw(self, step: int) -> None:
        server = self._browser_cameras.viser_server
        if server is not None:
            self._plot.redraw()
            self.frusta.draw(server)
            self._show_last(step)

    def end(self, step: int) -> None:
        """Show the last state, also to browsers that connect later, and say that training has ended at this step;
        nothing can be changed any more."""
        self._draw(step)
        self._status.update(f"Training has ended at step {step}. {self._status.content}")
        for control in (self._pause, self._weight, self._every):
            control.set_disabled(True)

    def _show_last(self, step: int) -> None:
        semantic, visualization = self._semantic, self._visualization
        if semantic is None or visualization is None or semantic.last is None:
            return
        last, state = semantic.last, " L_sc is paused." if semantic.paused else ""
        if semantic.switched_off is not None:
            state = f" L_sc is switched off: {escaped(semantic.switched_off)}."
        self._status.update(
            f"Step {step}. Last semantic step {last.step}: L_sc {float(last.loss):.4f}, "
            f"similarity {float(last.similarity):.3f}.{state}"
        )
        if last is not self._shown:
            self._shown = last
            url = data_url(visualization.side_by_side(last, height=IMAGE_HEIGHT_PX))
            # An image in Markdown's own notation is at most 240 pixels wide in viser.
            self._image.update(f'<img src="{url}" width="100%" />\n\n{visualization.caption(last)}')

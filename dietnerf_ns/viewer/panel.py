"""The DietNeRF panel in nerfstudio's viewer: an orbit around the scene, and the semantic loss while it trains."""

from __future__ import annotations

from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import nn

from dietnerf_ns.semantic.consistency import SemanticConfig
from dietnerf_ns.viewer.browser_cameras import BrowserCameras
from dietnerf_ns.viewer.elements import Folder, Markdown
from dietnerf_ns.viewer.orbit import OrbitFolder
from dietnerf_ns.viewer.semantic import SemanticFolder

NOT_TRAINING = "Training has ended: there are no semantic views."


class ViewerPanel(nn.Module):
    """Two folders of viewer elements; nerfstudio finds them because the panel is an attribute of the pipeline.

    Without a viewer nothing is drawn or sent.

    Args:
        photos: the kept training views.
        semantic: settings of the loss, or None outside training, when the folder about it says that training has ended.
    """

    def __init__(self, photos: InputDataset, semantic: SemanticConfig | None):
        super().__init__()
        self.browser_cameras = BrowserCameras()
        self.orbit = OrbitFolder(photos, self.browser_cameras)
        if semantic is None:
            self.semantic_consistency = Folder()
            self.semantic_consistency.show(Markdown(NOT_TRAINING))
        else:
            self.semantic_consistency = SemanticFolder(semantic, photos, self.browser_cameras)

    @property
    def in_viewer(self) -> bool:
        """Whether nerfstudio's viewer shows the panel."""
        return self.browser_cameras.in_viewer

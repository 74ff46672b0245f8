"""The DietNeRF panel in nerfstudio's viewer: an orbit around the scene, and the semantic loss while it trains."""

from __future__ import annotations

from nerfstudio.data.datasets.base_dataset import InputDataset
from torch import nn

from dietnerf_ns.semantic.consistency import SemanticConsistency
from dietnerf_ns.viewer.browser_cameras import BrowserCameras
from dietnerf_ns.viewer.elements import Folder, Markdown
from dietnerf_ns.viewer.orbit import OrbitFolder
from dietnerf_ns.viewer.semantic import SemanticFolder

NOT_TRAINING = "Training has ended: there are no semantic views."


class ViewerPanel(nn.Module):
    """Two folders of viewer elements; nerfstudio finds them because the panel is an attribute of the pipeline.

    Without a viewer they are inert: nothing is drawn or sent.

    Args:
        semantic: the loss that the controls act on.
        photos: the kept training views.
        training: whether the pipeline was made for training; otherwise the folder about it says that it has ended.
    """

    def __init__(self, semantic: SemanticConsistency, photos: InputDataset, *, training: bool):
        super().__init__()
        self.clients = BrowserCameras()
        self.orbit = OrbitFolder(photos, self.clients)
        if training:
            self.semantic_consistency = SemanticFolder(semantic, photos, self.clients)
        else:
            self.semantic_consistency = Folder()
            self.semantic_consistency.show(Markdown(NOT_TRAINING))

    @property
    def in_viewer(self) -> bool:
        """Whether nerfstudio's viewer shows the panel."""
        return self.clients.in_viewer

"""dietnerf-similarity: does an encoder tell the views of one scene from those of others?"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro


@dataclass
class Similarity:
    """Compare photos within a scene and across scenes by the cosine similarity of their embeddings.

    The semantic loss pulls renders towards photos in the space of an encoder, which helps only if there any two views
    of the scene are more alike than a view of it and one of something else. This measures that on your photos, as the
    paper's figure does for its objects: AUC is the probability that a pair within the scene is more similar than a
    pair across scenes. At least 0.9 is judged well, from 0.7 partly, else hardly (0.5 is chance), by the lower end of
    its 95 % interval. Compare scenes that were taken alike: backgrounds are told apart, too.

    Written under --out: histogram.png, matrix.png, and similarity.json with all numbers and the verdicts.
    """

    scenes: tyro.conf.Positional[tuple[Path, ...]]
    """Folders with transforms_train.json (read as blender-data), transforms.json (as nerfstudio-data), or images. A
    single one is compared with the scene that comes with this package."""
    out: Path
    """Folder of the results; files in it are replaced."""
    max_images: int = 20
    """At most so many photos of each scene, evenly chosen; at least 3."""
    encoder: Literal["open-clip", "embedded"] = "open-clip"
    """open-clip: CLIP, the paper's choice; downloads its weights at first use. embedded: ImageNet EfficientNet-Lite0
    from an installed package; no download, small, weaker."""
    clip_model: str = "ViT-B-32-quickgelu"
    """Model name of open-clip-torch. OpenAI's weights need the -quickgelu variants."""
    clip_pretrained: str = "openai"
    """Weights of the CLIP model: a tag of open-clip-torch or a checkpoint file."""
    embedding: Literal["projected", "class-token"] = "projected"
    """Which CLIP vector: the projected image feature, or the last layer's class token as in the paper's code."""

    def main(self) -> None:
        """Check everything, embed the photos, write the report, say the verdicts."""
        import torch

        from dietnerf_ns.similarity.photos import FEWEST_PHOTOS, embed_scenes, read_scenes
        from dietnerf_ns.similarity.report import write_report
        from dietnerf_ns.similarity.statistics import THRESHOLDS
        from dietnerf_ns.utils.errors import UserError, make_folder

        if self.max_images < FEWEST_PHOTOS:
            raise UserError(f"--max-images {self.max_images}: must be at least {FEWEST_PHOTOS}.")
        scenes = read_scenes(self._folders(), self.max_images)
        make_folder(self.out, "--out")
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        embeddings = embed_scenes(self._load_encoder(device), scenes, device)
        for sentence in write_report(self.out, scenes, embeddings, self._encoder_settings()):
            print(sentence)
        print(f"{THRESHOLDS}\nPlots and numbers: {self.out}")

    def _folders(self) -> list[Path]:
        from dietnerf_ns.methods import TINY_SCENE
        from dietnerf_ns.utils.errors import UserError

        if not self.scenes:
            raise UserError("Name at least one folder of photos.")
        if len(self.scenes) > 1 or self.scenes[0].resolve() == TINY_SCENE:
            return [*self.scenes]
        print(f"Only one scene is given: compared with the one that comes with this package, {TINY_SCENE.name}.")
        return [*self.scenes, TINY_SCENE]

    def _encoder_settings(self) -> dict[str, str]:
        clip = {name: getattr(self, name) for name in ("clip_model", "clip_pretrained", "embedding")}
        return {"encoder": self.encoder} | (clip if self.encoder == "open-clip" else {})

    def _load_encoder(self, device):
        from dietnerf_ns.semantic.consistency import SemanticConfig, make_encoder
        from dietnerf_ns.utils.errors import UserError

        try:
            return make_encoder(SemanticConfig(**self._encoder_settings()), device)
        except UserError as error:
            raise UserError(str(error).replace("--pipeline.semantic.", "--")) from error


def main() -> None:
    """Entry point of dietnerf-similarity."""
    # Threads that spin while they wait make a network many times slower when another program wants a processor, too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # What nerfstudio and torchmetrics say about themselves when they are imported; a user can do nothing about it.
    warnings.simplefilter("ignore", FutureWarning)
    tyro.cli(Similarity).main()


if __name__ == "__main__":
    main()

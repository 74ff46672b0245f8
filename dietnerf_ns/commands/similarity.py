"""dietnerf-similarity: does an encoder distinguish the views of one scene from those of others?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from dietnerf_ns.semantic.encoders import EncoderConfig
from dietnerf_ns.utils.ending import ends_in_one_line


@dataclass
class Similarity(EncoderConfig):
    """Compare photos within a scene and across scenes by the cosine similarity of their embeddings.

    The semantic loss pulls renders towards photos in the space of an encoder. This helps only if any two views of the
    scene are more alike in that space than a view of it and a view of something else. The command measures that on your
    photos, as the paper's figure does for its objects. AUC is the probability that a pair within the scene is more
    similar than a pair across scenes: at least 0.9 counts as well separated, from 0.7 as partly, below as hardly (0.5
    is chance). The lower end of its 95 % interval decides. Compare scenes that were photographed alike, because
    backgrounds are distinguished as well.

    Written to --out: histogram.png, matrix.png, and similarity.json with all numbers and the verdicts.
    """

    scenes: tyro.conf.Positional[tuple[Path, ...]] = field(kw_only=True)
    """Folders with transforms_train.json (read as blender-data), transforms.json (read as nerfstudio-data), or images.
    HEIC photos need the package pillow-heif.
    A single folder is compared with the scene that comes with this package."""
    out: Path = field(kw_only=True)
    """Folder for the results; files in it are replaced.
    It must not be the folder of a scene, whose photos the plots would be taken for."""
    max_images: int = field(default=20, kw_only=True)
    """Largest number of photos of each scene, evenly chosen; at least 3."""

    def main(self) -> None:
        """Check everything, embed the photos, write the report, print the verdicts."""
        import torch

        from dietnerf_ns.similarity.photos import FEWEST_PHOTOS, check_out, embed_photo_sets, read_photo_sets
        from dietnerf_ns.similarity.report import write_report
        from dietnerf_ns.similarity.statistics import THRESHOLDS
        from dietnerf_ns.utils.errors import check_limits, flags_under, make_folder, writing

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with flags_under("--"):
            check_limits(self, {"max_images": (self.max_images >= FEWEST_PHOTOS, f"at least {FEWEST_PHOTOS}")})
            photo_sets = read_photo_sets(self._folders(), self.max_images)
            check_out(self.out, photo_sets)
            make_folder(self.out, "--out")
            embeddings = embed_photo_sets(self.load_encoder(device), photo_sets, device)
        with writing(f"--out {self.out}"):
            sentences = write_report(self.out, photo_sets, embeddings, self.identity())
        print("\n".join(sentences))
        print(f"{THRESHOLDS}\nPlots and numbers: {self.out}")

    def _folders(self) -> list[Path]:
        from dietnerf_ns.methods import TINY_SCENE
        from dietnerf_ns.utils.errors import UserError

        if not self.scenes:
            raise UserError("Name at least one folder of photos.")
        first, *others = self.scenes
        if others or first.resolve() == TINY_SCENE.resolve():
            return [*self.scenes]
        print(f"Only one scene is given. It is compared with the one that comes with this package, {TINY_SCENE.name}.")
        return [*self.scenes, TINY_SCENE]


def main() -> None:
    """Entry point of dietnerf-similarity."""
    # Warnings that nerfstudio and torchmetrics emit when they are imported, on which a user cannot act.
    warnings.simplefilter("ignore", FutureWarning)
    with ends_in_one_line(nothing_kept=""):
        tyro.cli(Similarity).main()


if __name__ == "__main__":
    main()

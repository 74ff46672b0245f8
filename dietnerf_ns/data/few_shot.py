"""Keeps a few training views of any dataparser, looks at their photos, and finds images to evaluate on."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Literal

from nerfstudio.configs.dataparser_configs import AnnotatedDataParserUnion
from nerfstudio.data.datamanagers.base_datamanager import DataManager, DataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataparserOutputs
from nerfstudio.data.dataparsers.nerfstudio_dataparser import NerfstudioDataParserConfig
from nerfstudio.data.pixel_samplers import PixelSampler
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from dietnerf_ns.data.capture import CAPTURE, Capture
from dietnerf_ns.data.contents import any_transparent, report_photos_in_both, report_training_photos
from dietnerf_ns.data.dataparsers import checked
from dietnerf_ns.data.dataset import AreaDownscaledDataset
from dietnerf_ns.data.photos import SUFFIXES, Size, orientations_of
from dietnerf_ns.data.protocols import (
    PROTOCOLS,
    departure_in_evaluation,
    departure_in_training,
    protocol_test_indices,
)
from dietnerf_ns.data.transforms_file import read_transforms
from dietnerf_ns.data.view_selection import keep_views, select_views
from dietnerf_ns.geometry.cameras import direction_coverage
from dietnerf_ns.utils.errors import UserError, check_limits, flags_under

FLAGS = "--pipeline.datamanager."
HOW_TO_NAME_EVAL_IMAGES = (
    "To get some, keep fewer training views (--pipeline.datamanager.num-views), so that the rest is evaluated. With "
    "nerfstudio-data you can also put 'train' and 'eval' into the file names and add `--eval-mode filename`, or list "
    "all of train_filenames, val_filenames and test_filenames in transforms.json."
)

HOW_TO_NAME_TRAINING_PHOTOS = (
    "With nerfstudio-data, --train-split-fraction must be above 0, `--eval-mode filename` needs 'train' in file names, "
    "and train_filenames in transforms.json must not be empty."
)
TRANSPARENT_ON_BLACK = (
    "Transparent pixels are trained on as black, because the photos' borders have no uniform background. Choose "
    "another colour with --pipeline.model.background-color, or cut the object out completely."
)
NO_LIST = "list of filenames for split {split} is missing"
"""What nerfstudio-data says if transforms.json lists other splits."""


@dataclass
class FewShotViewsConfig(DataManagerConfig):
    """Which few views are trained on."""

    if TYPE_CHECKING:  # fields of the datamanagers that this is mixed with
        dataparser: AnnotatedDataParserUnion = field(default_factory=NerfstudioDataParserConfig)
        camera_res_scale_factor: float = 1.0

    num_views: int | None = None
    """Number of training views to keep; all when not given. DietNeRF is made for 4 to 14."""
    view_strategy: Literal["first", "random", "farthest"] = "farthest"
    """How num-views chooses: the first of the training split, a random choice (see view-seed), or views as far apart as
    possible in viewing direction and position."""
    view_seed: int = 0
    """Seed of the view strategy `random`. Seed 0 on a NeRF-Synthetic scene gives the paper's eight views."""
    view_indices: tuple[int, ...] | None = None
    """Indices of the training views to keep, instead of num-views."""
    protocol: Literal[tuple(PROTOCOLS)] | None = None  # type: ignore[valid-type]
    """Training and test views of a published protocol on NeRF-Synthetic scenes, instead of num-views."""


class FewShotViews(DataManager):
    """A datamanager's part that chooses the views, to be put in front of nerfstudio's or a plugin's datamanager.

    The choice depends on the configuration alone, so that every command finds the same views again.

    Args:
        config: which views; everything else as in the other datamanager.

    Raises:
        UserError: data that cannot be read, or settings that cannot work.
    """

    config: FewShotViewsConfig
    capture: Capture
    """The kept training views; without a look at the photos if `test_mode` is inference, which opens none."""
    train_pixel_sampler: PixelSampler | None = None
    """Which pixels are trained on; None for whole images."""
    has_eval_images: bool = True
    """Whether there are images that are not trained on."""

    if TYPE_CHECKING:  # set by the datamanagers that this is mixed with
        dataparser: DataParser
        train_dataparser_outputs: DataparserOutputs
        train_dataset: AreaDownscaledDataset
        test_mode: str
        test_split: str

    def __init__(self, config: FewShotViewsConfig, **kwargs):
        data = config.data or config.dataparser.data
        if not data.exists():
            raise UserError(f"Data {data}: there is no such file or folder.")
        limits = {
            "camera_res_scale_factor": (config.camera_res_scale_factor > 0, "above 0"),
            "view_seed": (0 <= config.view_seed < 2**32, "at least 0 and below 2^32"),
        }
        with flags_under(FLAGS):
            check_limits(config, limits)
            config = replace(config, dataparser=checked(config.dataparser))
            super().__init__(config, **kwargs)  # type: ignore[call-arg]  # the other datamanager's

    @property
    def heeds_masks(self) -> bool:
        """Whether pixels outside the photos' masks are left out in training."""
        return True

    def mark_background(self) -> None:
        """From now on training batches say which rays show the background, if they are rays and photos have one."""

    def begin_step(self, step: int) -> None:
        """Prepare the training batch of a step.

        Args:
            step: training steps since the present initialisation.
        """

    def create_train_dataset(self) -> AreaDownscaledDataset:
        """Reduce the training split to the chosen views; nerfstudio calls this with the full split in place."""
        self.all_train_outputs = self.train_dataparser_outputs
        if not self.all_train_outputs.image_filenames:
            raise UserError(f"Data {self.config.data}: the training split has no photos. {HOW_TO_NAME_TRAINING_PHOTOS}")
        self.view_indices = select_views(
            self.all_train_outputs.cameras.camera_to_worlds,
            num_views=self.config.num_views,
            strategy=self.config.view_strategy,
            seed=self.config.view_seed,
            indices=self.config.view_indices,
            protocol=self.config.protocol,
        )
        self.train_dataparser_outputs = keep_views(self.all_train_outputs, self.view_indices)
        dataset = self._dataset(self.train_dataparser_outputs)
        if self.test_mode == "inference":
            self.capture = Capture(dataset.cameras)
        else:
            report_training_photos(dataset)
            self.capture = Capture.of_photos(dataset)
            has_colour = self.train_dataparser_outputs.alpha_color is not None
            if self.capture.background is None and not has_colour and any_transparent(dataset):
                self._report_transparency()
        dataset.metadata[CAPTURE] = self.capture
        self._report_views(dataset)
        return dataset

    def create_eval_dataset(self) -> AreaDownscaledDataset:
        """The evaluation images: the dataparser's, or the training views that were not kept, or none (empty).

        Raises:
            UserError: the mask of an evaluation image has no pixel that counts.
        """
        dataset = self._dataset(self._eval_outputs())
        if self.test_mode != "inference":
            self._report_masks(dataset)
            if self.has_eval_images:
                report_photos_in_both(self.train_dataset, dataset)
        return dataset

    def _eval_outputs(self) -> DataparserOutputs:
        outputs = self._split_of_dataparser(self.test_split)
        if self.config.protocol is not None and self.test_split == "test":
            return self._protocol_test_views(self.config.protocol, outputs)
        if outputs is not None:
            return outputs
        other = "val" if self.test_split == "test" else "test"
        outputs = self._split_of_dataparser(other)
        if outputs is not None:
            CONSOLE.print(
                f"Evaluation: the {self.test_split} split has no images or no file; the {other} split is evaluated "
                "instead."
            )
            return outputs
        rest = [i for i in range(len(self.all_train_outputs.image_filenames)) if i not in self.view_indices]
        if rest:
            CONSOLE.print(
                f"Evaluation: the {self.test_split} split has no images or no file; "
                f"the {len(rest)} unused training views are evaluated instead."
            )
            return keep_views(self.all_train_outputs, rest)
        CONSOLE.print(
            f"[bold yellow]Evaluation: there are no evaluation images because all {len(self.view_indices)} photos are "
            f"trained on.[/bold yellow] {HOW_TO_NAME_EVAL_IMAGES}"
        )
        self.has_eval_images = False
        # ns-render and ns-viewer need cameras to start from; training must find nothing to evaluate.
        return keep_views(self.all_train_outputs, self.view_indices if self.test_split == "test" else [])

    def _protocol_test_views(self, protocol: str, outputs: DataparserOutputs | None) -> DataparserOutputs:
        if outputs is None:
            raise UserError(f"Protocol {protocol} evaluates the test split, which has no images or no file.")
        evaluated = keep_views(outputs, protocol_test_indices(outputs.image_filenames, PROTOCOLS[protocol]))
        _warn(departure_in_evaluation(evaluated.image_filenames, protocol))
        return evaluated

    def _split_of_dataparser(self, split: str) -> DataparserOutputs | None:
        """An evaluation split of the dataparser, or None if it has no images, no file or no list of file names."""
        try:
            outputs = self.dataparser.get_dataparser_outputs(split=split)
        except UserError as error:
            if self._is_of_missing_split(error, split) or NO_LIST.format(split=split) in str(error):
                return None
            raise
        return outputs if outputs.image_filenames else None

    def _is_of_missing_split(self, error: UserError, split: str) -> bool:
        """Whether a dataparser found no file that lists a split, or none of its photos, and not just one missing."""
        cause = error.__cause__
        if not isinstance(cause, FileNotFoundError):
            return False
        file = Path(str(cause.filename))
        if file.suffix.lower() not in SUFFIXES:
            return True
        cameras = self.dataparser.config.data / f"transforms_{split}.json"
        if cameras.is_file():
            names = [cameras.parent / frame["file_path"] for frame in read_transforms(cameras)["frames"]]
            return not any(name.is_file() or name.with_name(f"{name.name}.png").is_file() for name in names)
        return not any(photo.is_file() for photo in file.parent.glob(f"*{file.suffix}"))

    def _report_masks(self, evaluated: AreaDownscaledDataset) -> None:
        in_training = mask_shares(self.train_dataset)
        self._check_training_masks(in_training)
        in_evaluation = mask_shares(evaluated) if self.has_eval_images else []
        if 0 in in_evaluation:
            raise UserError(
                f"{evaluated.image_filenames[in_evaluation.index(0)]}: the mask of this evaluation photo is black "
                "everywhere, so that no pixel counts. Leave the photo out, or correct the mask."
            )
        masked = [
            f"all {len(shares)} {kind} photos have one ({fmean(shares):.0%} of the pixels inside)"
            for kind, shares in (("training", in_training), ("evaluation", in_evaluation))
            if shares
        ]
        if masked:
            CONSOLE.print(f"Masks: {', '.join(masked)}. Pixels outside the masks are not counted in evaluation.")

    def _check_training_masks(self, shares: list[float]) -> None:
        black = [path for path, share in zip(self.train_dataset.image_filenames, shares, strict=False) if share == 0]
        if not black or not self.heeds_masks:
            return
        if len(black) == len(shares):
            raise UserError(
                f"{black[0]}: the mask of this photo, as of all {len(black)} training photos, is black everywhere, so "
                "that no pixel is trained on. White marks what counts."
            )
        names = escape(", ".join(path.name for path in black))
        CONSOLE.print(f"[yellow]Masks: black everywhere are those of {names}, which are not trained on.[/yellow]")

    def _report_transparency(self) -> None:
        CONSOLE.print(TRANSPARENT_ON_BLACK)

    def _report_views(self, dataset: AreaDownscaledDataset) -> None:
        names = escape(", ".join(path.name for path in dataset.image_filenames))
        coverage = direction_coverage(dataset.cameras.camera_to_worlds)
        CONSOLE.print(
            f"Training views: {len(dataset)} of {len(self.all_train_outputs.image_filenames)} ({names}); "
            f"direction coverage {coverage:.2f} (share of all directions within 30 degrees of a view)."
        )
        if self.config.protocol is not None:
            self._report_protocol(self.config.protocol, dataset)

    def _report_protocol(self, protocol: str, dataset: AreaDownscaledDataset) -> None:
        _warn(departure_in_training(self.all_train_outputs.image_filenames, protocol))
        size, published = (
            (int(dataset.cameras.width[0]), int(dataset.cameras.height[0])),
            PROTOCOLS[protocol].resolution,
        )
        if size != published:
            _warn(
                f"Protocol {protocol} is published at {'x'.join(map(str, published))} pixels. This run is at "
                f"{size[0]}x{size[1]}: do not compare its numbers with published ones."
            )

    def _dataset(self, outputs: DataparserOutputs) -> AreaDownscaledDataset:
        return AreaDownscaledDataset(outputs, scale_factor=self.config.camera_res_scale_factor, upright=self._upright)

    @cached_property
    def _upright(self) -> bool:
        """Whether poses belong to the upright photos where a photo's size does not tell.

        The training photos tell; where all of them have the same size either way, those of the other splits do.
        """
        if self.test_mode == "inference":
            return False
        photos = _with_sizes(self.all_train_outputs)
        found = orientations_of(photos)
        if found.warning is not None and not found.told:
            for split in ("val", "test"):
                with suppress(UserError):  # evaluation says what is wrong with a split
                    outputs = self._split_of_dataparser(split)
                    photos += [] if outputs is None else _with_sizes(outputs)
            found = orientations_of(dict.fromkeys(photos))
        _warn(found.warning)
        return found.upright


def _with_sizes(outputs: DataparserOutputs) -> list[tuple[Path, Size]]:
    cameras = outputs.cameras
    sizes = zip(cameras.width.flatten().tolist(), cameras.height.flatten().tolist(), strict=True)
    return list(zip(outputs.image_filenames, sizes, strict=True))


def _warn(sentence: str | None) -> None:
    if sentence is not None:
        CONSOLE.print(f"[yellow]{escape(sentence)}[/yellow]", soft_wrap=True)


def mask_shares(dataset: AreaDownscaledDataset) -> list[float]:
    """Share of each photo's pixels inside its mask, in [0, 1]; empty if the dataset has no masks.

    Raises:
        UserError: a file cannot be read, or photo and mask do not fit together.
    """
    if not dataset.has_masks:
        return []
    masks = (dataset.get_data(index, "uint8")["mask"] for index in range(len(dataset)))
    return [float(mask.double().mean()) for mask in masks]

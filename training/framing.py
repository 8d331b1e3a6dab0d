"""The stage in which the photo tower learns to see a product in another frame as it saw it in its own.

A catalogue frames its products alike, and a tower that learned from one knows them by how much of the picture they
fill: it mistakes them in the square photos of another shop, which show more of the background. Here it is its own
teacher (Hinton et al. 2015), by its features: all that was learned from them, heads, gates and calibration, stays.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.fusion import FusionTagger
from models.towers import PhotoTower
from training.augment import Augmenter
from training.data import Labelled
from training.loop import Report, Stage
from training.photos import without_text
from training.recipe import AugmentSection, FramingSection
from training.stages import Material, freeze, parameter_groups, require
from training.table import Row

# Of what a picture shows: its size in the new frame, and how much wider or taller it is there.
SMALLEST, LARGEST = 0.4, 1.1
WIDER = 1.6
PLAIN = 0.2  # of the photos stay as they are
OFF_CENTRE = 0.5  # of the free space, the most that a picture moves in it


def reframed(photos: Tensor) -> Tensor:
    """Photos uint8 (P, 3, S, S) made smaller, larger, wider or taller at random, on the colour of their borders."""
    return torch.stack([photo if torch.rand(()) < PLAIN else in_a_frame(photo) for photo in photos])


def in_a_frame(photo: Tensor) -> Tensor:
    side = photo.shape[-1]
    size = torch.empty(()).uniform_(SMALLEST, LARGEST).item()
    stretch = math.exp(torch.empty(()).uniform_(-0.5, 0.5).item() * math.log(WIDER))
    height, width = (max(1, round(side * of)) for of in (size / stretch, size * stretch))
    resized = functional.interpolate(
        photo[None].float(), (height, width), mode="bicubic", antialias=True, align_corners=False
    )[0]
    frame = border(photo)[:, None, None].expand(-1, side, side).clone()
    (top, cut_top), (left, cut_left) = place(height, side), place(width, side)
    shown = resized[:, cut_top : cut_top + side, cut_left : cut_left + side]
    frame[:, top : top + shown.shape[1], left : left + shown.shape[2]] = shown
    return frame.round().clamp(0, 255).to(torch.uint8)


def place(length: int, side: int) -> tuple[int, int]:
    """Where something of this length begins in the frame, and what is cut off at its beginning."""
    free = side - length
    begin = round(free * (0.5 + torch.empty(()).uniform_(-0.5, 0.5).item() * OFF_CENTRE))
    return max(0, begin), max(0, -begin)


def border(photo: Tensor) -> Tensor:
    """The median colour of the outermost pixels, float (3,)."""
    edges = [photo[:, 0], photo[:, -1], photo[:, :, 0], photo[:, :, -1]]
    return torch.cat(edges, dim=1).float().median(dim=1).values


class Remembering(nn.Module):
    """The tower, and beside it the tower as it was."""

    def __init__(self, tower: PhotoTower) -> None:
        super().__init__()
        self.before = copy.deepcopy(tower).requires_grad_(False)
        self.tower = tower

    def train(self, mode: bool = True) -> "Remembering":
        super().train(mode)
        self.before.eval()
        return self

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor]:
        """Features (P, D) of reframed photos uint8 (P, 3, S, S), and those that the photos had."""
        return self.tower(reframed(photos)), self.before(photos)


def apart(seen: Tensor, wanted: Tensor) -> Tensor:
    """How far features (P, D) are from those wanted, as a share of the variance of these."""
    spread = (wanted - wanted.mean(dim=0)).square().mean()
    return (seen - wanted).square().mean() / spread.clamp(min=1e-12)


def with_photos(material: Material) -> tuple[list[Row], list[Row]]:
    """What the stage learns from, and what it is validated on: the rows with photos, without their texts. Raises
    DataError without any.
    """
    shown, held_out = (
        [without_text(row) for row in part if row.photos] for part in (material.rows, material.validation)
    )
    require("framing", "photos", shown, held_out)
    # A product that was described as well has the same photos twice.
    return shown, list({row.photos: row for row in held_out}.values())


def framing_stage(tagger: FusionTagger, section: FramingSection, material: Material) -> Stage:
    """On the photos of all rows, labelled or not; nothing but the photo tower learns. Raises DataError without any."""
    shown, held_out = with_photos(material)
    remembering = Remembering(tagger.photo_tower)
    tagger.photo_tower.requires_grad_(True)  # whatever an earlier stage froze
    freeze(tagger.photo_tower.visual, section.photo_frozen)
    mirrored = AugmentSection(drop_text=0, drop_photos=0, flip=material.recipe.augment.flip, crop=0)

    def loss(network: nn.Module, batch: Labelled) -> tuple[Tensor, Report]:
        return apart(*network(batch.batch.photos)), {}

    @torch.inference_mode()
    def validate(network: nn.Module) -> Report:
        """The loss over all held-out photos at once, each time in the same frames: one photo alone, which a last batch
        may hold, has no variance.
        """
        device = next(network.parameters()).device
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(material.recipe.train.seed)  # and not that of a GPU
            features = [
                [of.cpu() for of in network(batch.batch.photos.to(device))]
                for batch in material.loader(held_out, section.batch_size)
            ]
        seen, wanted = (torch.cat(of) for of in zip(*features, strict=True))
        return {"loss": apart(seen, wanted).item()}

    return Stage(
        name="framing",
        network=remembering,
        groups=parameter_groups(section, {"photo": [tagger.photo_tower]}, []),
        loader=material.loader(shown, section.batch_size, Augmenter(mirrored, material.taxonomy)),
        loss=loss,
        validate=validate,
        metric="loss",
        settings=section,
        stopping=material.stopping("loss"),
    )

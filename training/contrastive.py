"""CLIP's contrastive stage on the shop's own photos and titles (Radford et al. 2021)."""

from dataclasses import replace

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.fusion import FusionTagger
from training.augment import Augmenter
from training.data import Labelled
from training.loop import Report, Stage
from training.recipe import AugmentSection, ContrastiveSection
from training.stages import Material, freeze, parameter_groups, require


class Clip(nn.Module):
    """The tagger's two towers in one space; only the photo tower and the text's projection learn."""

    def __init__(self, tagger: FusionTagger, temperature: float) -> None:
        super().__init__()
        self.text_tower = tagger.text_tower
        self.photo_tower = tagger.photo_tower
        self.text_projection = nn.Linear(tagger.text_tower.width, tagger.photo_tower.width)
        self.logit_scale = nn.Parameter(torch.tensor(1 / temperature).log())

    def forward(self, labelled: Labelled) -> tuple[Tensor, Tensor]:
        """Unit embeddings (B, D) of the photos and of the text, one of each for every product."""
        batch = labelled.batch
        with torch.no_grad():
            text = self.text_tower(batch.token_ids, batch.type_ids, batch.token_mask)
        text = functional.normalize(self.text_projection(text), dim=-1)
        return functional.normalize(self.photo_tower(batch.photos), dim=-1), text

    def scale(self) -> Tensor:
        """At most 100, as in the paper (Radford et al. 2021, section 2.5)."""
        return self.logit_scale.exp().clamp(max=100)


def contrastive_stage(tagger: FusionTagger, section: ContrastiveSection, material: Material) -> Stage:
    """Photo-title pairs of the rows that have both; each product's first photo. Raises DataError without any."""
    clip = Clip(tagger, section.temperature)
    freeze(clip.text_tower, ("",))
    freeze(clip.photo_tower.visual, section.photo_frozen)
    pairs, held_out = (
        [replace(row, photos=row.photos[:1]) for row in part if row.photos and row.title]
        for part in (material.rows, material.validation)
    )
    require("contrastive", "a photo and a title", pairs, held_out)
    augment = material.recipe.augment
    # A pair without its photo or its title is no pair.
    crops = AugmentSection(drop_text=0, drop_photos=0, flip=augment.flip, crop=augment.crop)
    loss_of = open_clip.ClipLoss()

    def loss(network: nn.Module, batch: Labelled) -> tuple[Tensor, Report]:
        photos, text = network(batch)
        value = loss_of(photos, text, clip.scale())
        return value, {"scale": clip.scale().item()}

    @torch.inference_mode()
    def validate(network: nn.Module) -> Report:
        """The mean loss over batches of held-out pairs."""
        assert isinstance(network, Clip)
        losses = []
        for batch in material.loader(held_out, section.batch_size):
            photos, text = network(batch.to(network.logit_scale.device))
            losses.append(loss_of(photos, text, network.scale()).item())
        return {"loss": sum(losses) / len(losses)}

    return Stage(
        name="contrastive",
        network=clip,
        groups=parameter_groups(
            section, {"photo": [clip.photo_tower], "heads": [clip.text_projection]}, [clip.logit_scale]
        ),
        loader=material.loader(pairs, section.batch_size, Augmenter(crops, material.taxonomy)),
        loss=loss,
        validate=validate,
        metric="loss",
        settings=section,
        stopping=material.stopping("loss"),
    )

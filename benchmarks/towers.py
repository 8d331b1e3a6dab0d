"""The checkpoint that a benchmark serves: the one of the settings, or towers of the size that shops fine-tune.

Those, a BERT-base and a ViT-B-32, get random weights: how fast they are does not depend on what they have learned, and
nothing needs fetching. Taxonomy and tokenizer are the starter's, so the heads and the texts have their usual size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import click

from benchmarks.installation import ROOT
from catalog.settings import Settings

Towers = Literal["starter", "base"]
TEXT: dict[str, Any] = {  # google-bert/bert-base-uncased
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
PHOTO: dict[str, Any] = {  # open_clip's ViT-B-32
    "embed_dim": 512,
    "vision_cfg": {"layers": 12, "width": 768, "head_width": 64, "patch_size": 32, "image_size": 224},
}
MEAN, STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)  # of CLIP
MAX_TOKENS = 128

option = click.option(
    "--towers",
    default="starter",
    show_default=True,
    type=click.Choice(get_args(Towers)),
    help="starter: of TAGSMITH_CHECKPOINT, by default the starter. base: a BERT-base and a ViT-B-32 of random weights.",
)


@contextmanager
def served(towers: Towers, settings: Settings) -> Iterator[Settings]:
    """The settings with the checkpoint of these towers, which is there inside the block. Raises CheckpointError."""
    if towers == "starter":
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="tagsmith-base-") as folder:
        path = Path(folder) / "base"
        write_base(path)
        yield settings.model_copy(update={"checkpoint": path})


def write_base(path: Path, text: dict[str, Any] = TEXT, photo: dict[str, Any] = PHOTO) -> None:
    import torch  # seconds that --help need not pay

    from models.calibration import Calibration
    from models.checkpoint import load, save
    from models.fusion import FusionConfig, FusionTagger
    from models.preprocessing import Preprocessing, Preprocessor

    starter = load(ROOT / "models" / "starter")
    torch.manual_seed(0)
    model = FusionTagger(FusionConfig(text, photo, tuple(starter.taxonomy.sizes)))
    preprocessing = Preprocessing(photo["vision_cfg"]["image_size"], MEAN, STD, max_tokens=MAX_TOKENS)
    save(
        replace(
            starter,
            name="base-random",
            model=model.eval(),
            preprocessor=Preprocessor(preprocessing, starter.preprocessor.tokenizer),
            calibration=Calibration.uncalibrated(starter.taxonomy, target_precision=0.95),
            metrics={"rows": {}},
            card="# base-random\n\nRandom weights, to measure speed with.\n",
        ),
        path,
    )

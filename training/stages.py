"""What the stages of a recipe share: the material they learn from, and which parameters learn how fast."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from models.fusion import FusionTagger
from models.preprocessing import Preprocessor
from models.taxonomy import Taxonomy
from training.augment import Augmenter
from training.data import Collator, Products, targets_of, taught_of
from training.early_stopping import EarlyStopping
from training.errors import DataError
from training.evaluation import evaluate_rows, summary
from training.loop import Report
from training.recipe import OptimizerSection, Recipe
from training.table import Row


@dataclass(frozen=True)
class Material:
    """The rows to learn from and those to validate on, and what turns them into batches."""

    recipe: Recipe
    rows: Sequence[Row]
    validation: Sequence[Row]
    preprocessor: Preprocessor
    taxonomy: Taxonomy

    def loader(
        self, rows: Sequence[Row], batch_size: int, augmenter: Augmenter | None = None
    ) -> DataLoader[Any]:
        """Shuffled and augmented when there is an augmenter; in order and plain otherwise."""
        return DataLoader(
            Products(rows, self.preprocessor, augmenter, self.recipe.train.seed),
            batch_size=batch_size,
            shuffle=augmenter is not None,
            # A last batch of one product would make a noisy step; a table smaller than a batch still needs its
            # only one.
            drop_last=augmenter is not None and len(rows) >= batch_size,
            collate_fn=Collator(targets_of(rows, self.taxonomy), taught_of(rows, self.taxonomy)),
            num_workers=self.recipe.data.workers,
            # Its own: starting an epoch in the middle must not shift the random numbers of dropout.
            generator=torch.Generator(),
        )

    def figures(self, network: nn.Module, rows: Sequence[Row]) -> Report:
        """Of the fused answers to these rows."""
        assert isinstance(network, FusionTagger)
        logits = evaluate_rows(network, rows, self.preprocessor, self.recipe.data.workers)
        return summary(logits, targets_of(rows, self.taxonomy), self.taxonomy)

    def stopping(self, metric: str) -> EarlyStopping:
        section = self.recipe.early_stopping
        return EarlyStopping(section.patience, section.min_delta, higher_is_better=metric != "loss")


def require(stage: str, what: str, learning: Sequence[Row], held_out: Sequence[Row]) -> None:
    """Raises DataError where a stage has no row to learn from or none to validate on."""
    if not (learning and held_out):
        raise DataError(
            f"the stage {stage!r} needs products with {what}: there are {len(learning)} to learn from and"
            f" {len(held_out)} to validate on; add some, or leave the section out of the recipe"
        )


def freeze(module: nn.Module, prefixes: Sequence[str]) -> None:
    for name, parameter in module.named_parameters():
        if any(name.startswith(prefix) for prefix in prefixes):
            parameter.requires_grad_(False)


def parameter_groups(
    section: OptimizerSection, modules: dict[str, list[nn.Module]], loose: list[nn.Parameter]
) -> list[dict[str, Any]]:
    """A group for each part and decay; vectors (biases, norms, loose parameters) are never decayed."""
    rates = {"text": section.text_lr, "photo": section.photo_lr, "heads": section.heads_lr}
    groups = [{"params": loose, "lr": section.heads_lr, "weight_decay": 0.0}]
    for part, parts in modules.items():
        learning = [p for module in parts for p in module.parameters() if p.requires_grad]
        groups.append({"params": [p for p in learning if p.ndim > 1], "lr": rates[part]})
        groups.append(
            {"params": [p for p in learning if p.ndim <= 1], "lr": rates[part], "weight_decay": 0.0}
        )
    return [group for group in groups if group["params"]]

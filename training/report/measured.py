"""The rows under every condition, and what the checkpoint said of them.

Legend: N rows, V values of an attribute.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from models.checkpoint import Checkpoint
from models.scope import InScope
from training.applicable import Known, known
from training.conditions import CONDITIONS, Condition, shown
from training.data import targets_of
from training.evaluation import Logits, evaluate_rows, report, said
from training.table import Row


@dataclass(frozen=True)
class Measured:
    """`entries` are the `attributes` of `evaluate --json`, `offered` what a buyer would be told; `truth` says
    where each attribute applies.
    """

    checkpoint: Checkpoint
    rows: Sequence[Row]
    targets: tuple[Tensor, ...]
    truth: tuple[Known, ...]
    logits: dict[Condition, Logits]
    offered: dict[Condition, tuple[InScope, ...]]
    entries: dict[Condition, dict[str, dict[str, Any]]]

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Those that take something away from these rows and leave something to see."""
        text = any(row.title or row.description for row in self.rows)
        photos = any(row.photos for row in self.rows)
        worth = {"as_is": True, "masked_titles": text}
        return tuple(condition for condition in CONDITIONS if worth.get(condition, text and photos))

    def confidences(self, index: int) -> Tensor:
        """Of one attribute as its products are: calibrated confidences (N, V), its scope left aside."""
        calibration = self.checkpoint.calibration.attributes[index]
        logits, attribute = self.logits["as_is"], self.checkpoint.taxonomy.attributes[index]
        of = calibration.patterns_for(logits.served, logits.text_only[index], attribute.multiple)
        return calibration.confidences(logits.fused[index], of, attribute.multiple)


def measure_all(
    checkpoint: Checkpoint, rows: Sequence[Row], workers: int, wordings: Iterable[str] = ()
) -> Measured:
    """Runs the rows once for each condition; `wordings` tell values beside those of the taxonomy."""
    logits = {
        condition: evaluate_rows(
            checkpoint.model,
            shown(rows, condition, checkpoint.taxonomy, wordings),
            checkpoint.preprocessor,
            workers,
            quiet=False,
        )
        for condition in CONDITIONS
    }
    return measured_from(checkpoint, rows, logits)


def measured_from(checkpoint: Checkpoint, rows: Sequence[Row], logits: dict[Condition, Logits]) -> Measured:
    taxonomy, calibration = checkpoint.taxonomy, checkpoint.calibration
    targets = targets_of(rows, taxonomy)
    return Measured(
        checkpoint,
        rows,
        targets,
        known(targets, taxonomy),
        logits,
        {name: said(run, taxonomy, calibration) for name, run in logits.items()},
        {name: report(run, targets, taxonomy, calibration) for name, run in logits.items()},
    )

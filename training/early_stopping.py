"""Stops when the validation metric no longer improves; its state is saved, so a resumed run does not forget
the best.
"""

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class EarlyStopping:
    """`patience` is the number of validations without an improvement of more than `min_delta` before the
    stop.
    """

    patience: int
    min_delta: float
    higher_is_better: bool = True
    best: float = field(default=math.nan)
    best_epoch: int = -1
    waited: int = 0

    def update(self, metric: float, epoch: int) -> bool:
        """Whether this is the best so far. A metric that is not a number never is."""
        gain = metric - self.best if self.higher_is_better else self.best - metric
        improved = not math.isnan(metric) and (math.isnan(self.best) or gain > self.min_delta)
        if improved:
            self.best, self.best_epoch, self.waited = metric, epoch, 0
        else:
            self.waited += 1
        return improved

    @property
    def stop(self) -> bool:
        return self.waited >= self.patience

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch, self.waited = state["best"], state["best_epoch"], state["waited"]

"""What a run's stages went through, and its picture."""

import json
from pathlib import Path
from typing import Any

FIGURES = ("loss", "macro_f1", "accuracy")


def histories(out: Path) -> list[dict[str, Any]]:
    """Each stage of the run in `out`, in order, with its best epoch and its validations from epoch 0 on."""
    # A stage writes its progress for the last time when it ends, so these times are the order of the run.
    files = sorted(out.glob("*/progress.json"), key=lambda path: path.stat().st_mtime_ns)
    runs = [(path.parent.name, json.loads(path.read_text())) for path in files]
    return [
        {"stage": name, "best_epoch": run["early_stopping"]["best_epoch"], "history": run["history"]}
        for name, run in runs
    ]


def draw_curves(stages: list[dict[str, Any]], out: Path) -> None:
    """`curves.png`: the validation figures of every stage by epoch, its best epoch marked."""
    import matplotlib

    matplotlib.use("Agg")  # no display on a training machine
    import matplotlib.pyplot as plt

    panels = [(stage, figure) for stage in stages for figure in FIGURES if figure in stage["history"][0]]
    drawing, axes = plt.subplots(
        1, len(panels), figsize=(4 * len(panels), 3), squeeze=False, layout="constrained"
    )
    for axis, (stage, figure) in zip(axes[0], panels, strict=True):
        axis.plot([epoch[figure] for epoch in stage["history"]], marker="o")
        axis.axvline(stage["best_epoch"], linestyle=":", color="grey")
        axis.set(title=f"{stage['stage']}: {figure}", xlabel="epoch")
    drawing.savefig(out / "curves.png", dpi=120)
    plt.close(drawing)

"""Pictures of a run."""

import json
from pathlib import Path

FIGURES = ("loss", "macro_f1", "accuracy")


def draw_curves(out: Path) -> None:
    """`curves.png`: the validation figures of every stage by epoch, its best epoch marked."""
    import matplotlib

    matplotlib.use("Agg")  # no display on a training machine
    import matplotlib.pyplot as plt

    runs = {path.parent.name: json.loads(path.read_text()) for path in sorted(out.glob("*/progress.json"))}
    panels = [
        (stage, figure) for stage, run in runs.items() for figure in FIGURES if figure in run["history"][0]
    ]
    drawing, axes = plt.subplots(
        1, len(panels), figsize=(4 * len(panels), 3), squeeze=False, layout="constrained"
    )
    for axis, (stage, figure) in zip(axes[0], panels, strict=True):
        history = [epoch[figure] for epoch in runs[stage]["history"]]
        axis.plot(history, marker="o")
        axis.axvline(runs[stage]["early_stopping"]["best_epoch"], linestyle=":", color="grey")
        axis.set(title=f"{stage}: {figure}", xlabel="epoch")
    drawing.savefig(out / "curves.png", dpi=120)
    plt.close(drawing)

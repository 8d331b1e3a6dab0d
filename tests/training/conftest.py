"""A catalogue small enough to learn in seconds: coloured squares whose titles name some of what they show."""

import csv
import gc
from pathlib import Path

import pytest

from tests.tiny_tagger import picture, write_backbones
from training import fit, measure
from training.contract import contract
from training.loop import Progress
from training.plots import draw_curves

COLOURS = ("red", "green", "blue")
KINDS = ("shirt", "shoe")
MATERIALS = ("cotton", "linen", "wool")


def write_catalogue(folder: Path, products: int) -> Path:
    """Every second title keeps the colour to itself, so only the photo tells it; some labels are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for colour in COLOURS:
        (folder / f"{colour}.jpg").write_bytes(picture(colour))
    with (folder / "metadata.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "id", "title", "description", "group", "colour", "kind", "material"])
        for n in range(products):
            colour, kind = COLOURS[n % 3], KINDS[(n // 3) % 2]
            materials = [MATERIALS[n % 3], MATERIALS[(n + n // 5) % 3]]
            title = f"{colour} {kind}" if n % 2 else f"new {kind}"
            writer.writerow(
                [
                    f"{colour}.jpg" if n % 7 else "",
                    n,
                    title if n % 11 else "the",
                    " and ".join(materials),
                    f"group {n // 2}",
                    colour if n % 13 else "",
                    kind,
                    "|".join(dict.fromkeys(materials)),
                ]
            )
    return folder / "metadata.csv"


@pytest.fixture(scope="module", autouse=True)
def libraries_are_no_garbage():
    """Each stage ends with a collection, which takes longer than the stage where it is of all that torch has made."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_curves(monkeypatch):
    """Drawing them takes a third of so small a run."""
    monkeypatch.setattr(fit, "draw_curves", lambda stages, out: None)


@pytest.fixture
def curves(no_curves, monkeypatch):
    """They are drawn all the same."""
    monkeypatch.setattr(fit, "draw_curves", draw_curves)


@pytest.fixture(autouse=True)
def few_halvings(monkeypatch):
    """A checkpoint that is calibrated anew is halved a hundred times, which takes longer than all else of it."""

    def the_first_three(seen, taxonomy, section, splits, **rest):
        return contract(seen, taxonomy, section, min(splits, 3), **rest)

    monkeypatch.setattr(measure, "contract", the_first_three)


class Killed(BaseException):
    pass


@pytest.fixture
def fit_killed_at(monkeypatch):
    """Fits until so many states have been saved and ends there as if killed; returns the stage that it died in."""

    def fit_and_die(last, *arguments):
        stages, save = [], Progress.save

        def save_then_die(self, accelerator):
            save(self, accelerator)
            stages.append(self.out.name)
            if len(stages) == last:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(Progress, "save", save_then_die)
            with pytest.raises(Killed):
                fit.fit(*arguments)
        return stages[-1]

    return fit_and_die


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory):
    return write_catalogue(tmp_path_factory.mktemp("catalogue"), 240)


@pytest.fixture(scope="session")
def backbones(tmp_path_factory):
    return write_backbones(tmp_path_factory.mktemp("backbones"))


def write_recipe(folder: Path, backbones: dict[str, str]) -> Path:
    """A recipe with both stages, small enough for two epochs in seconds."""
    path = folder / "recipe.toml"
    path.write_text(
        f"""
name = "tiny"

[backbones]
text = "{backbones["text"]}"
photo = "{backbones["photo"]}"
photo_weights = "{backbones["photo_weights"]}"

[data]
multiple = ["material"]
workers = 0

[split]
validation = 0.15
calibration = 0.2
test = 0.15

[model]
width = 16
lexicon = 1024
max_tokens = 16
max_photos = 2

[contrastive]
epochs = 1
batch_size = 16

[train]
epochs = 3
batch_size = 16
text_lr = 3e-3
photo_lr = 3e-3
heads_lr = 1e-2

[early_stopping]
patience = 3

[calibration]
splits = 3
"""
    )
    return path


@pytest.fixture
def recipe_file(tmp_path, backbones):
    return write_recipe(tmp_path, backbones)

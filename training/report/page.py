"""Everything measured, put into one page that loads nothing: no script, no font, no picture from outside."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from models.calibration import PATTERN_IN_WORDS
from models.taxonomy import Attribute
from training.conditions import IN_WORDS
from training.report.audit import Labels, catalogue_of, labels_of
from training.report.confusion import Mistakes, mistakes_of
from training.report.measured import Measured
from training.report.thumbnails import thumbnail
from training.report.trust import Trust, trust_of
from training.table import Row

HEADS = {"fused": "fused", "text_only": "text alone", "photo_only": "photos alone"}
LEAST_AXIS = 0.01  # three labels on less would read the same in their three decimals
TICK_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2)
MOST_TICKS = 5
LONGEST_TEXT = 160  # characters of an example: a title, or the start of a description


@dataclass(frozen=True)
class Chapter:
    """One attribute: its figures under each condition that leaves something of it to see, how far it can be trusted,
    its mistakes and labels.
    """

    number: int
    attribute: Attribute
    entries: dict[str, dict[str, Any]]
    trust: tuple[Trust, ...]
    mistakes: Mistakes
    labels: Labels
    target: float

    @property
    def gain(self) -> float | None:
        """What fusion adds to the macro-F1 of its better part, as is, rounded as it is shown; None where there were
        not both parts to fuse.
        """
        fused, *parts = (self.entries["as_is"][head]["macro_f1"] for head in HEADS)
        return None if None in parts else round(fused - max(parts), 3)

    @property
    def precision_ticks(self) -> list[float]:
        """The precision axis, from under everything that is drawn to one, in round steps."""
        drawn = [self.target, *(point.precision for trust in self.trust for point in trust.curve)]
        room = 1 - min(drawn)
        step = next((step for step in TICK_STEPS if room <= MOST_TICKS * step), 0.2)
        steps = max(1, math.ceil(room / step - 1e-9))
        return [round(1 - n * step, 2) for n in range(steps, -1, -1)]


def write_report(path: Path, measured: Measured, document: dict[str, Any], table: str, part: str) -> None:
    """An earlier file stays until it is whole. Raises OSError."""
    page = render(measured, document, table, part)
    path = path.resolve()  # a link stays one
    if path.exists() and not path.is_file():  # nothing may take the place of a device or a pipe
        path.write_text(page, encoding="utf-8")
        return
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.write_text(page, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def render(measured: Measured, document: dict[str, Any], table: str, part: str) -> str:
    """The page of a checkpoint; `document` is that of `evaluate --json`, `table` and `part` say what was measured.

    The same rows and the same checkpoint give the same page, byte for byte.
    """
    taxonomy = measured.checkpoint.taxonomy
    chapters = [
        Chapter(
            number=index,
            attribute=attribute,
            entries={
                condition: measured.entries[condition][attribute.name]
                for condition in measured.conditions
                if attribute.name in measured.entries[condition]
            },
            trust=trust_of(measured, index),
            mistakes=mistakes_of(measured, index),
            labels=labels_of(measured, index),
            target=measured.checkpoint.calibration.attributes[index].target_precision,
        )
        for index, attribute in enumerate(taxonomy)
        if attribute.name in measured.entries["as_is"]
    ]
    heads = {
        head
        for chapter in chapters
        for head in HEADS
        if chapter.entries["as_is"][head]["macro_f1"] is not None
    }
    return (
        environment()
        .get_template("report.html")
        .render(
            name=measured.checkpoint.name,
            document=document,
            table=table,
            part=part,
            chapters=chapters,
            unmeasured=[a.name for a in taxonomy if a.name not in measured.entries["as_is"]],
            catalogue=catalogue_of(measured.rows),
            training=measured.checkpoint.metrics.get("training", []),
            card=markdown(measured.checkpoint.card),
            CONDITIONS={condition: IN_WORDS[condition] for condition in measured.conditions},
            HEADS={head: label for head, label in HEADS.items() if head in heads},
            PATTERNS=PATTERN_IN_WORDS,
        )
    )


def environment() -> Environment:
    found = Environment(
        loader=PackageLoader("training"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        percent=percent,
        target=target,
        figure=figure,
        signed=signed,
        count=count,
        text=text_of,
        thumbnail=thumbnail_of,
    )
    found.globals.update(mean=mean, log=math.log, axis=axis)
    return found


def markdown(card: str) -> Markup:
    """The card as HTML: markup inside it stays text, and nothing in it is fetched or followed."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])
    return Markup(reader.render(card))


def percent(share: float | None) -> str:
    """Rounded as the printed table is: 0.9925 is 0.993 there, so it is 99.3% here, which alone would be 99.2%."""
    return "–" if share is None else f"{float(f'{share:.3f}'):.1%}"


def target(share: float) -> str:
    return f"{share * 100:.4g}%"


def figure(number: float | None) -> str:
    return "–" if number is None else f"{number:.3f}"


def signed(number: float | None) -> str:
    if number is None:
        return "–"
    return f"{number:+.3f}".replace("-", "−") if number else "±0.000"


def count(number: int) -> str:
    return f"{number:,}"


def axis(values: Sequence[float]) -> tuple[float, float]:
    """From where to where values are drawn: at least LEAST_AXIS, and within 0 and 1 where all of them are."""
    low, high = min(values), max(values)
    length = max(high - low, LEAST_AXIS)
    start = (low + high - length) / 2
    if low >= 0 and high <= 1:
        start = min(max(start, 0.0), 1 - length)
    return start, start + length


def mean(numbers: Sequence[float | None]) -> float | None:
    """Over those that are there."""
    there = [number for number in numbers if number is not None]
    return sum(there) / len(there) if there else None


def text_of(row: Row) -> str:
    """What names a product to a person: its title, or else the start of its description."""
    text = " ".join((row.title or row.description).split())
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def thumbnail_of(row: Row) -> str:
    """A data URL, empty for a product without photos."""
    return thumbnail(Path(row.photos[0])) if row.photos else ""

"""The ways a product is shown to be measured: tidy catalogues flatter a model, sellers' products do not."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal, get_args

from models.taxonomy import Taxonomy
from training.table import Row
from training.telling import telling_words, without

Condition = Literal["as_is", "masked_titles", "without_photos", "without_text"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
IN_WORDS: dict[Condition, str] = {
    "as_is": "as they are",
    "masked_titles": "with masked titles",
    "without_photos": "without photos",
    "without_text": "without text",
}


def shown(
    rows: Sequence[Row], condition: Condition, taxonomy: Taxonomy, wordings: Iterable[str] = ()
) -> list[Row]:
    """The rows as the model sees them under the condition; their groups and values stay.

    `masked_titles` takes the telling words out of titles and descriptions; `wordings` names more of them than
    the taxonomy does.
    """
    if condition == "without_photos":
        return [replace(row, photos=()) for row in rows]
    if condition == "without_text":
        return [replace(row, title="", description="") for row in rows]
    if condition == "masked_titles":
        words = telling_words(taxonomy, wordings)
        return [
            replace(row, title=without(row.title, words), description=without(row.description, words))
            for row in rows
        ]
    return list(rows)

"""From a product to an Example: tokens and pixels, the same way in training and in serving.

Knows nothing of the network. Decoding, resizing and tokenizing all release the GIL, so several threads may
prepare at once. Legend: T tokens, P photos, S side in pixels.
"""

import html
import io
import math
import os
import re
import unicodedata
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from tokenizers import Tokenizer

from models.errors import CheckpointError, UnreadablePhoto
from models.product import NO_FEATURES, NO_TEXT_FEATURES, Example, Product, SeenPhoto

# Texts come one by one: the tokenizer's own threads would only be handed each of them, and forbid a later fork.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The decoders a photo may reach; every other format Pillow knows stays shut (Pillow handbook, "Security").
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF")
# A picture that is to be made smaller still has so many times the pixels of either side.
ROOM = 1.25
NO_TOKENS = np.zeros(0, dtype=np.int64)
# What shops export descriptions with. `&copy` without its semicolon may be the middle of a name.
ENTITY = re.compile(r"&#?\w+;")
MARKUP = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)


@dataclass(frozen=True)
class Preprocessing:
    """The numbers of `preprocess.json`.

    Photos are squashed to a square of `photo_size` pixels: the whole product stays in view, and no crop can
    cut off a shoe. `mean` and `std` are per channel on the 0..1 scale.
    """

    photo_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    max_tokens: int = 128
    max_photos: int = 8

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> "Preprocessing":
        """Raises CheckpointError when a number is missing or unknown."""
        known = {field.name for field in fields(cls)}
        if set(document) != known:
            raise CheckpointError(
                f"preprocess.json must hold exactly {sorted(known)}, not {sorted(document)}"
            )
        return cls(**{**document, "mean": tuple(document["mean"]), "std": tuple(document["std"])})


class Preprocessor:
    """Prepares products; safe to call from several threads."""

    def __init__(self, config: Preprocessing, tokenizer: Tokenizer) -> None:
        self.config = config
        self.tokenizer = tokenizer
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(config.max_tokens)

    @classmethod
    def from_files(cls, config: Preprocessing, tokenizer_folder: Path) -> "Preprocessor":
        """Raises CheckpointError when the folder has no fast tokenizer, or a damaged one."""
        path = tokenizer_folder / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(
                f"{path} is missing: the text tower needs a fast tokenizer (tokenizer.json)"
            )
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{path} is no tokenizer: {error}") from error
        return cls(config, tokenizer)

    def __call__(self, product: Product) -> Example:
        """Raises UnreadablePhoto when a photo cannot be decoded."""
        token_ids, type_ids = self.tokens(product.title, product.description)
        photos = product.photos[: self.config.max_photos]
        pixels = [self.photo(photo) for photo in photos if not isinstance(photo, SeenPhoto)]
        seen = [np.frombuffer(photo.features, np.float16) for photo in photos if isinstance(photo, SeenPhoto)]
        text = product.text_features
        return Example(
            token_ids,
            type_ids,
            self.stack(pixels),
            np.stack(seen) if seen else NO_FEATURES,
            np.frombuffer(text, np.float16) if text and len(token_ids) else NO_TEXT_FEATURES,
        )

    def tokens(self, title: str, description: str) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and segment ids, int64 (T,) each: title and description as a pair of segments."""
        title, description = in_words(title), in_words(description)
        if not title and not description:
            return NO_TOKENS, NO_TOKENS
        # A description alone is the second segment as well: what it names is not what a title calls the product.
        text = (title, description) if description else title
        # Of the tokenizer's calls only those for batches let other threads run meanwhile.
        (encoding,) = self.tokenizer.encode_batch_fast([text])
        return np.asarray(encoding.ids, dtype=np.int64), np.asarray(encoding.type_ids, dtype=np.int64)

    def photo(self, photo: bytes) -> np.ndarray:
        """uint8 (3, S, S). Raises UnreadablePhoto."""
        return self.pixels(decode(photo, math.ceil(ROOM * self.config.photo_size)))

    def pixels(
        self, picture: Image.Image, box: tuple[float, float, float, float] | None = None
    ) -> np.ndarray:
        """uint8 (3, S, S); `box` is the part of the picture to keep, in its own pixels."""
        side = self.config.photo_size
        resized = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
        return np.asarray(resized, dtype=np.uint8).transpose(2, 0, 1)

    def stack(self, photos: list[np.ndarray]) -> np.ndarray:
        """uint8 (P, 3, S, S), also for P = 0."""
        side = self.config.photo_size
        return np.stack(photos) if photos else np.zeros((0, 3, side, side), dtype=np.uint8)


def in_words(text: str) -> str:
    """The words of a text as a vocabulary has them: without HTML, set apart from emoji and other symbols, and in the
    plain form of letters and digits that have wide or ornate ones.

    To a BERT's tokenizer `Red❤Dress` and `Ｎｉｋｅ` are each one word, which it does not know, and so is `Nike®`.
    """
    plain = MARKUP.sub(" ", ENTITY.sub(lambda entity: html.unescape(entity[0]), text))
    return plain.translate({ord(char): in_word(char) for char in set(plain) if not char.isascii()}).strip()


def in_word(char: str) -> str:
    kind = unicodedata.category(char)
    if kind.startswith("S"):
        return f" {char} "
    return unicodedata.normalize("NFKC", char) if kind.startswith("L") or kind == "Nd" else char


def decode(photo: bytes, least: int = 0) -> Image.Image:
    """An upright RGB picture; transparency becomes white, as shops show it.

    With `least`, a side in pixels, a JPEG is decoded at the smallest of its own scales (1/2, 1/4, 1/8) that has as much
    on either side: its pixels are then a fourth of the work, or less.

    Raises UnreadablePhoto for anything that is not a whole picture of PHOTO_FORMATS.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(photo), formats=PHOTO_FORMATS)
            if least:
                picture.draft(None, (least, least))
            picture.load()
            return to_rgb(upright(picture))
    except Image.UnidentifiedImageError as error:  # its own words name an object in memory
        raise UnreadablePhoto(
            f"a photo cannot be decoded: it is none of {', '.join(PHOTO_FORMATS)}"
        ) from error
    except (
        OSError,
        ValueError,
        SyntaxError,
        RuntimeError,  # of AVIF
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise UnreadablePhoto(f"a photo cannot be decoded: {error}") from error


def upright(picture: Image.Image) -> Image.Image:
    """Turned as its camera says, which intake has done to what is served. Where it says nothing that can be read the
    picture stays as it is, there as well.
    """
    try:
        ImageOps.exif_transpose(picture, in_place=True)
    except Exception:  # a stranger's bytes: whatever is wrong with them, the pixels could be read
        return picture
    return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I"):  # grey in 16 bits: Pillow takes all above 255 for white
        return picture.convert("I").point(lambda value: value / 257).convert("L").convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")

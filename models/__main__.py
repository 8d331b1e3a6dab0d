"""`python -m models`: tag a product from the command line without any server, and export a checkpoint."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import ModelsError, UnreadablePhoto
from models.product import Product, Tag

if TYPE_CHECKING:
    from models.compiled import Precision  # not when a command starts: it brings torch along


@click.group()
def main() -> None:
    """Work with a checkpoint."""


@main.command(
    epilog='Example: python -m models tag models/starter --title "Men Navy Blue T-shirt" --photo shirt.jpg'
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--title", default="", help="The product's title.")
@click.option("--description", default="", help="The product's description.")
@click.option(
    "--photo",
    "photos",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def tag(checkpoint: Path, title: str, description: str, photos: tuple[Path, ...], as_json: bool) -> None:
    """Tag one product with CHECKPOINT."""
    if not (title.strip() or description.strip() or photos):
        raise click.UsageError("give a --title, a --description or a --photo")
    from models.tagger import Tagger  # torch: not needed for --help

    try:
        tagger = Tagger.load(checkpoint)
        product = Product(title, description, tuple(map(readable, photos)))
        tagging = tagger.predict([tagger.prepare(product)])[0]
    except ModelsError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        document = {
            "model": {"name": tagger.name, "version": tagger.version},
            "tags": [dataclasses.asdict(tag) for tag in tagging.tags],
        }
        click.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        click.echo(table(tagging.tags))


def readable(photo: Path) -> bytes:
    """Its content. Raises UnreadablePhoto, which names the file."""
    from models.preprocessing import decode

    content = photo.read_bytes()
    try:
        decode(content)
    except UnreadablePhoto as error:
        raise UnreadablePhoto(f"{photo}: {error}") from error
    return content


@main.command(
    epilog="Example: python -m models export models/starter --precision int8 --products shop/metadata.csv --out int8"
)
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--precision", required=True, type=click.Choice(["bf16", "int8"]), help="Of the towers.")
@click.option(
    "--products",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A csv, jsonl or parquet table of title, description and file_name; best are products new to training.",
)
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to write to."
)
@click.option(
    "--limit",
    default=2000,
    show_default=True,
    type=click.IntRange(min=150),
    help="Products of the table to look at, drawn by chance.",
)
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
def export(
    checkpoint: Path, precision: "Precision", products: Path, out: Path, limit: int, as_json: bool
) -> None:
    """Make of CHECKPOINT one that serves faster on processors (needs the extra `cpu`).

    Nothing is written, and the exit code is 1, where it would not offer the same as CHECKPOINT for at least 99 % of
    the tags: of products with text and photos, with text alone, and with photos alone. With a table without photos, or
    without texts, the tower of these stays in float32. Run it on the kind of processor that will serve.
    """
    from models.export import export as make
    from models.export import text

    try:
        document = make(checkpoint, precision, products, out, limit, progress)
    except (ModelsError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(document) if as_json else text(document))
    click.echo(
        "It promises nothing yet: every tag goes to a person until it is calibrated:\n"
        f"  python -m training calibrate {out} --data METADATA --out {out}-calibrated",
        err=True,
    )


def progress(iterable: Iterable[Any], length: int, title: str) -> Iterator[Any]:
    with click.progressbar(iterable, length=length, label=title, file=sys.stderr) as bar:
        yield from bar


def table(tags: tuple[Tag, ...]) -> str:
    width = max(len(tag.attribute) for tag in tags)
    return "\n".join(
        f"{tag.attribute:<{width}}  {tag.value or '-':<24}  {tag.confidence:6.1%}  {tag.decision:<7}  "
        f"text {share(tag.evidence.text)}  photos {share(tag.evidence.photos)}"
        for tag in tags
    )


def share(probability: float | None) -> str:
    return "   -" if probability is None else f"{probability:4.0%}"


if __name__ == "__main__":
    sys.exit(main())

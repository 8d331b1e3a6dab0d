"""`python -m models`: tag a product from the command line, without any server."""

import dataclasses
import json
import sys
from pathlib import Path

import click

from models.errors import ModelsError
from models.product import Product, Tag


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
        product = Product(title, description, tuple(photo.read_bytes() for photo in photos))
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

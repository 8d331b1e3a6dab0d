"""Adversarial training: every step also learns from the same words, moved the way that hurts most.

The fast gradient method on the embedded words (Miyato, Dai & Goodfellow 2017, "Adversarial Training Methods for
Semi-Supervised Text Classification"). It moves what the embedding gives for the batch and not the table itself, so it
works just as well where the table is frozen or the encoder learns through adapters.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from training.recipe import AdversarialSection

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, float]]]
SMALLEST = 1e-12  # a text that the loss does not depend on has no gradient to divide by


def attacked(
    loss: Loss, words: nn.Module, section: AdversarialSection, regularizer: Callable[[], Tensor] | None = None
) -> Loss:
    """The loss plus `weight` times the loss with what `words`, the word embeddings, gives moved by `epsilon`; and once
    the `regularizer`, which no text has part in.

    `epsilon` is the length of the move for a whole text. A batch without any text has nothing to move.
    """

    def both(network: nn.Module, batch: Any) -> tuple[Tensor, dict[str, float]]:
        with seen(words) as embedded:
            clean, report = loss(network, batch)
        once = clean if regularizer is None else clean + regularizer()
        if not embedded:
            return once, report
        gradients = torch.autograd.grad(clean, embedded, retain_graph=True)  # each (B, T, D)
        with moved(words, [section.epsilon * against(gradient) for gradient in gradients]):
            harder, _ = loss(network, batch)
        return once + section.weight * harder, {**report, "adversarial": harder.item()}

    return both


def against(gradient: Tensor) -> Tensor:
    """The direction in which the loss of each text grows, of length one for the whole text."""
    return gradient / gradient.flatten(1).norm(dim=1).clamp(min=SMALLEST).view(-1, 1, 1)


@contextmanager
def seen(words: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what the module gives, in a form that the loss can be derived by: a tower may take a batch in parts."""
    outputs: list[Tensor] = []

    def note(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        outputs.append(output if output.requires_grad else output.requires_grad_())

    hook = words.register_forward_hook(note)
    try:
        yield outputs
    finally:
        hook.remove()


@contextmanager
def moved(words: nn.Module, by: list[Tensor]) -> Iterator[None]:
    """The same parts again in the same order, each moved."""
    moves = iter(by)
    hook = words.register_forward_hook(lambda _module, _inputs, output: output + next(moves))
    try:
        yield
    finally:
        hook.remove()

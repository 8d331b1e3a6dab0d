"""Adapters on the text tower: it stays as it is, and a few added weights learn instead. The adapters are peft's.

LoRA (Hu et al. 2021) and AdaLoRA (Zhang et al. 2023) are merged into the weights after training, so the checkpoint is
as if they had never been. Prefix tuning (Li & Liang 2021) cannot be merged: its prefix stays as a part of the tower.
Knows the text tower, no stage and no loop.
"""

from dataclasses import replace
from typing import Any

import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, PrefixEncoder, PrefixTuningConfig, get_peft_model
from torch import Tensor, nn

from models.fusion import FusionTagger
from models.prefix import Prefix
from training.errors import RecipeError
from training.recipe import AdaptersSection

LEARNING = ("lora_", "prefix.")  # how the names of what learns are known
# Shares of the steps: AdaLoRA first looks at every rank, then takes ranks away, and ends with those that are left.
ALL_RANKS, LAST_RANKS = 0.1, 0.3
ORTHOGONALITY = 0.1  # the weight of AdaLoRA's regularizer (section 3.1 of the paper)


class Adapters:
    """The adapters of one tagger, from `attach` to `merge`.

    Raises RecipeError where this text tower cannot take them.
    """

    def __init__(self, tagger: FusionTagger, section: AdaptersSection, steps: int, seed: int) -> None:
        """`steps` is how long the tagging stage may last: AdaLoRA takes its ranks away by then."""
        self.tagger = tagger
        self.tower = tagger.text_tower
        self.peft: PeftModel | None = None
        self.ranks: Ranks | None = None
        # Its own random numbers: a resumed run must attach what the first one did.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if section.method == "prefix":
                self.attach_prefix(section)
            else:
                self.attach_low_rank(section, steps)

    def attach_prefix(self, section: AdaptersSection) -> None:
        if self.tagger.config.text["model_type"] != "bert":
            raise RecipeError(
                "adapters.method: prefix tuning needs a BERT as the text tower, take lora or adalora"
            )
        self.tower.prefix = LearnedPrefix(section.prefix_tokens, self.tower.encoder.config)
        text = {**self.tagger.config.text, "prefix_tokens": section.prefix_tokens}
        self.tagger.config = replace(self.tagger.config, text=text)

    def attach_low_rank(self, section: AdaptersSection, steps: int) -> None:
        shared: dict[str, Any] = {
            "target_modules": list(section.targets)
            or None,  # None: what peft knows to be usual for this encoder
            "lora_alpha": section.alpha,
            "lora_dropout": section.dropout,
        }
        config = LoraConfig(r=section.rank, **shared)
        if section.method == "adalora":
            config = AdaLoraConfig(
                target_r=section.rank,
                init_r=section.rank
                + max(1, section.rank // 2),  # half as many again to choose from, as in the paper
                total_step=max(2, steps),  # in its last step peft judges the ranks by what it saw before
                tinit=int(ALL_RANKS * steps),
                tfinal=int(LAST_RANKS * steps),
                deltaT=max(1, steps // 100),
                **shared,
            )
        try:
            # The encoder's own modules are changed in place; the wrapper is only needed to merge.
            self.peft = get_peft_model(self.tower.encoder, config)
        except ValueError as error:
            raise RecipeError(f"adapters.targets: they do not fit this text tower ({error})") from error
        if section.method == "adalora":
            self.ranks = Ranks(self.peft)

    def only_these_learn(self) -> None:
        """In the text tower; the rest of the tagger is left as it is."""
        for name, parameter in self.tower.named_parameters():
            parameter.requires_grad_(any(mark in name for mark in LEARNING))

    def merge(self) -> None:
        """Leaves a tower that format 1 can store and that answers as the adapted one did."""
        if self.peft is not None:
            self.tower.encoder = self.peft.merge_and_unload()
        if isinstance(self.tower.prefix, LearnedPrefix):
            self.tower.prefix = self.tower.prefix.as_stored()


class LearnedPrefix(nn.Module):
    """A prefix while it learns: peft's encoder, two layers on short embeddings, because the bare prefix learns badly
    (section 4.3 of the paper).
    """

    def __init__(self, tokens: int, config: Any) -> None:
        super().__init__()
        self.config = config
        self.encoder = PrefixEncoder(
            PrefixTuningConfig(
                num_virtual_tokens=tokens,
                token_dim=config.hidden_size,
                num_layers=config.num_hidden_layers,
                encoder_hidden_size=config.hidden_size,
                prefix_projection=True,
            )
        )
        self.register_buffer("places", torch.arange(tokens), persistent=False)

    def forward(self) -> Tensor:
        """(N, L·2·D), as `models.prefix.Prefix` gives it."""
        return self.encoder(self.places)

    def as_stored(self) -> Prefix:
        with torch.no_grad():
            states = self()
            stored = Prefix(len(states), self.config).to(states.device)
            stored.states.copy_(states)
        return stored


class Ranks:
    """AdaLoRA's own work after every step: it takes ranks from the matrices that need them least.

    Its state is part of what a killed run goes on with.
    """

    def __init__(self, peft: PeftModel) -> None:
        self.adalora: Any = peft.base_model
        self.allocator: Any = self.adalora.rankallocator
        self.config: Any = peft.peft_config["default"]

    def __call__(self, step: int) -> None:
        """After the optimizer's step, while the gradients are there; steps count from 1."""
        for name, parameter in self.adalora.model.named_parameters():
            if "lora_" in name and parameter.grad is None:  # a batch without any text
                parameter.grad = torch.zeros_like(parameter)
        self.adalora.update_and_allocate(step)

    def regularizer(self) -> Tensor:
        """How far from orthogonal the factors are, a mean over them, times its weight."""
        gaps = []
        for name, factor in self.adalora.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                product = factor @ factor.T if "lora_A" in name else factor.T @ factor
                gaps.append((product - torch.eye(len(product), device=product.device)).norm())
        return ORTHOGONALITY * torch.stack(gaps).mean()

    def state_dict(self) -> dict[str, Any]:
        return {
            "ipt": self.allocator.ipt,
            "exp_avg_ipt": self.allocator.exp_avg_ipt,
            "exp_avg_unc": self.allocator.exp_avg_unc,
            "rank_pattern": self.config.rank_pattern,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = next(self.adalora.parameters()).device
        for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            setattr(self.allocator, name, {key: tensor.to(device) for key, tensor in state[name].items()})
        self.config.rank_pattern = state["rank_pattern"]

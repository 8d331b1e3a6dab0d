"""The names of values, found in a title.

A network needs many products to learn what a word means, and a rare value has few. Its name needs none: a title that
says "taupe" says so of the first product as of the thousandth. So every name that stands in the title adds to the
logit of its value, the more the rarer the value was in training. What it adds is fixed, `training.naming` sets it.

Legend: B products, T tokens, A attributes, W all values together, N windows that could be a name.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

LONGEST = 8  # tokens of a name; a longer one is not looked for
# Odd numbers without a pattern, for a polynomial over the tokens and for the attribute's index, modulo 2^64.
BASE, SALT = 0x1F3D5B79A2C4E687, 0x5851F42D4C957F2D


class NamedValues(nn.Module):
    """Finds whole names in token ids. Inside a longer name of the same attribute a name is not one: `navy blue` is
    not blue.
    """

    keys: Tensor
    values: Tensor
    weights: Tensor
    continues: Tensor

    def __init__(self, names: int, vocabulary: int, sizes: Sequence[int]) -> None:
        """Without names until `look_for` or a checkpoint gives them."""
        super().__init__()
        self.attributes, self.width = len(sizes), sum(sizes)
        self.register_buffer("keys", torch.zeros(names, dtype=torch.int64))  # sorted
        self.register_buffer("values", torch.zeros(names, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(names))
        # Whether a token goes on with the word of the one before: a name ends where a word ends.
        self.register_buffer("continues", torch.zeros(vocabulary, dtype=torch.bool))

    def look_for(self, names: Mapping[int, int], continues: Tensor) -> None:
        """Names by `key_of`, each with the row of its value among all values together, and a weight of one each; as
        many as it was made for. `continues` bool (vocabulary,).
        """
        self.keys, order = torch.tensor(list(names), dtype=torch.int64).sort()
        self.values = torch.tensor(list(names.values()), dtype=torch.int64)[order]
        self.weights = torch.ones(len(names))
        self.continues = continues

    def forward(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) ids and a bool (B, T) mask of where names count, to what is added to the logits, (B, W)."""
        # So much longer that a window of any size has a place, in a title of any length.
        token_ids, mask = (nn.functional.pad(given, (0, LONGEST)) for given in (token_ids, mask))
        rows, length = token_ids.shape
        found = self.weights.new_zeros(rows, self.width)
        covered = torch.zeros(rows, self.attributes, length, dtype=torch.bool, device=token_ids.device)
        salts = torch.arange(1, self.attributes + 1, device=token_ids.device) * SALT  # (A,)
        # A word may begin here, and one that begins here may not be cut: the place after the last token is a beginning.
        begins = torch.cat([~self.continues[token_ids] | ~mask, mask.new_ones(rows, 1)], dim=1)  # (B, T + 1)
        for tokens in range(LONGEST, 0, -1):
            windows = token_ids.unfold(1, tokens, 1)  # (B, T - tokens + 1, tokens)
            starts = windows.shape[1]
            whole = begins[:, :starts] & begins[:, tokens:] & mask.unfold(1, tokens, 1).all(dim=2)
            free = ~covered.unfold(2, tokens, 1).any(dim=3)
            # Looking a window up costs more than all before it, so only those that could be a name are.
            product, attribute, start = (free & whole.unsqueeze(1)).nonzero(as_tuple=True)  # (N,) each
            keys = hashed(windows[product, start]) + salts[attribute]
            at = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
            hit = self.keys[at] == keys
            name, product, attribute, start = at[hit], product[hit], attribute[hit], start[hit]
            # Not by `found[...] = ...`, which makes a scalar of a single value: a trace in which one name was found
            # would expect one for ever.
            found.index_put_((product, self.values[name]), self.weights[name].to(found.dtype))
            for offset in range(tokens):
                covered[product, attribute, start + offset] = True
        return found


def hashed(windows: Tensor) -> Tensor:
    """int64 (..., n) token ids to (...)."""
    total = torch.zeros_like(windows[..., 0])
    for token in windows.unbind(dim=-1):
        total = (total + token + 1) * BASE  # wraps, as it should
    return total


def key_of(token_ids: Sequence[int], attribute: int) -> int:
    """Of a name in tokens, of the attribute of this index."""
    return int(hashed(torch.tensor(token_ids)) + torch.tensor(attribute + 1) * SALT)


def moved(keys: Tensor, attributes: Tensor) -> Tensor:
    """int64 (N,): the same names, of attributes that are so many places further on now."""
    return keys + attributes * SALT

"""A text classifier on a small BERT encoder (Devlin et al., NAACL 2019), built without a download."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tenfold import MissingExtraError, SettingError


def text_encoder(
    classes: int,
    *,
    vocabulary: int = 1000,
    length: int = 64,
    hidden: int = 64,
    layers: int = 2,
    heads: int = 4,
    seed: int = 0,
    **config: Any,
) -> nn.Module:
    """Return a ``BertForSequenceClassification`` of transformers with random weights.

    Parameters
    ----------
    classes : int
    vocabulary : int
        Number of tokens.
    length : int
        Longest sequence.
    hidden : int
        Features of a token, a multiple of `heads`; the feed-forward layers have four times as many.
    layers, heads : int
    seed : int
        Seeds the weights; torch's global generator is left untouched.
    **config
        Further arguments of ``BertConfig``.

    Returns
    -------
    nn.Module
        Takes ``input_ids`` and ``attention_mask``, int64 (n, up to `length`), and returns an
        output with ``logits`` (n, classes), and with ``loss`` when given ``labels``.

    Raises
    ------
    MissingExtraError
        transformers is not installed.
    SettingError
        A size is below 1, or `heads` does not divide `hidden`.
    """
    sizes = {"classes": classes, "vocabulary": vocabulary, "length": length}
    sizes |= {"hidden": hidden, "layers": layers, "heads": heads}
    for name, value in sizes.items():
        if value < 1:
            raise SettingError(f"{name} is {value}", "1 or more", f"Raise {name}.")
    if hidden % heads:
        raise SettingError(f"{heads} heads for {hidden} features", "a divisor", "Choose another number.")
    try:
        from transformers import BertConfig, BertForSequenceClassification
    except ImportError as error:
        raise MissingExtraError(
            "a text encoder was asked for and transformers is not installed",
            "transformers 4.57 or later",
            "Install it: pip install 'slr-prune[transformers]'.",
        ) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = BertForSequenceClassification(
            BertConfig(
                vocab_size=vocabulary,
                max_position_embeddings=length,
                hidden_size=hidden,
                intermediate_size=4 * hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                **{"num_labels": classes, **config},
            )
        )
    return model

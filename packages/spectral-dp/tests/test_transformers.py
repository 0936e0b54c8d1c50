"""Transformers made from a configuration, against a loop over single samples."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from spectral_dp import DCTLowPass, Projection, SpectralPrivacyEngine
from spectral_dp._samplers import embedding_norm_sample
from tenfold import SettingError

BOUND = 0.05
TOKENS = torch.randint(1, 11, (6, 5), generator=torch.Generator().manual_seed(1))
PLACES = torch.arange(5)
Y = torch.arange(6) % 3
MASK = torch.ones(6, 5).masked_fill((torch.arange(6) < 2).unsqueeze(1) & (PLACES > 2), 0)


class Encoder(nn.Module):
    """PyTorch's encoder layer between an embedding and the mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        logits: Tensor = self.head(self.encoder(self.embedding(tokens)).mean(1))
        return logits


class FromTransformers(nn.Module):
    """A model of the library transformers, from its configuration to its logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        types = {"token_type_ids": torch.zeros_like(tokens)} if "Bert" in type(self.model).__name__ else {}
        output = self.model(input_ids=tokens, position_ids=places, attention_mask=mask, **types)
        logits: Tensor = output.logits
        return logits if logits.dim() == 2 else logits.mean(1)


def encoder() -> nn.Module:
    torch.manual_seed(0)
    fixed: nn.Module = ModuleValidator.fix(Encoder())
    return fixed


def bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=11,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=8,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return FromTransformers(transformers.BertForSequenceClassification(config)).train()


def gpt(kind: str = "GPT2ForSequenceClassification") -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=11,
        n_embd=8,
        n_layer=2,
        n_head=2,
        n_positions=8,
        num_labels=3,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return FromTransformers(getattr(transformers, kind)(config)).train()


def private(model: nn.Module, mode: str, **changes: Any) -> tuple[Any, ...]:
    made = SpectralPrivacyEngine(not_private=True).make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        criterion=nn.CrossEntropyLoss(reduction="sum"),
        data_loader=DataLoader(TensorDataset(TOKENS, Y), batch_size=len(Y)),
        noise_multiplier=0.0,
        max_grad_norm=BOUND,
        loss_reduction="sum",
        grad_sample_mode=mode,
        **changes,
    )
    return (*made[:2], made[2] if mode == "ghost" else nn.CrossEntropyLoss(reduction="sum"))


def brute_force(model: nn.Module, filtered: dict[str, Projection]) -> tuple[Tensor, list[Tensor]]:
    """Return the norms and the sum of filtered, clipped gradients, sample by sample."""
    parameters = list(model.parameters())
    owners = {f"{layer}.weight": projection for layer, projection in filtered.items()}
    projections = {p: owners[name] for name, p in model.named_parameters() if name in owners}
    norms, total = [], [torch.zeros_like(p) for p in parameters]
    for i in range(len(Y)):
        one = slice(i, i + 1)
        loss = nn.functional.cross_entropy(model(TOKENS[one], PLACES[None], MASK[one]), Y[one])
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
        gradients = [
            projections[p].bind((p.shape[1],))(g) if p in projections else g
            for p, g in zip(parameters, gradients, strict=True)
        ]
        norms.append(torch.stack([g.norm() for g in gradients]).norm())
        assert norms[-1] > BOUND
        total = [t + g * BOUND / norms[-1] for t, g in zip(total, gradients, strict=True)]
    return torch.stack(norms), total


QUERY = "model.bert.encoder.layer.0.attention.self.query"
CASES: list[tuple[Callable[[], nn.Module], str, dict[str, Projection]]] = [
    (encoder, "hooks", {"encoder.linear1": DCTLowPass(0.5)}),
    (encoder, "ghost", {"encoder.linear1": DCTLowPass(0.5)}),
    (bert, "hooks", {QUERY: DCTLowPass(0.5)}),
    (bert, "ghost", {QUERY: DCTLowPass(0.5)}),
    (gpt, "hooks", {"model.score": DCTLowPass(0.5)}),
    (gpt, "ghost", {"model.score": DCTLowPass(0.5)}),
    (lambda: gpt("GPT2LMHeadModel"), "hooks", {}),
]


@pytest.mark.parametrize(
    ("make", "mode", "spectrum"), CASES, ids=[f"{i}-{mode}" for i, (_, mode, _) in enumerate(CASES)]
)
def test_norms_and_update_are_those_of_single_samples(
    make: Callable[[], nn.Module], mode: str, spectrum: dict[str, Projection]
) -> None:
    norms, total = brute_force(make(), spectrum)
    model = make()
    start = [p.detach().clone() for p in model.parameters()]
    module, optimizer, criterion = private(model, mode, spectrum=spectrum)
    criterion(module(TOKENS, PLACES.expand(6, -1), MASK), Y).backward()
    if mode == "ghost":
        torch.testing.assert_close(module.per_sample_gradient_norms, norms, atol=0, rtol=1e-5)
    optimizer.step()
    for before, p, expected in zip(start, model.parameters(), total, strict=True):
        torch.testing.assert_close(before - p, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("clipping", ["flat", "per_layer"])
def test_positions_that_samples_share_are_refused(clipping: str) -> None:
    for mode in ["hooks", "ghost"] if clipping == "flat" else ["hooks"]:
        model = gpt()
        before = nn.utils.parameters_to_vector(p.detach().clone() for p in model.parameters())
        module, optimizer, criterion = private(model, mode, clipping=clipping)
        loss = criterion(module(TOKENS, PLACES[None], MASK), Y)
        if mode == "hooks":
            loss.backward()
        with pytest.raises(SettingError, match=r"shape \(8, 8\).*position_ids"):
            optimizer.step() if mode == "hooks" else loss.backward()
        assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), before)


def test_tied_embeddings_are_refused_in_ghost_mode() -> None:
    with pytest.raises(
        SettingError, match=r"'model\.lm_head' shares 'weight' with 'model\.transformer\.wte'"
    ):
        private(gpt("GPT2LMHeadModel"), "ghost")


def test_conv1d_of_transformers_is_trained_but_not_filtered() -> None:
    with pytest.raises(SettingError, match="is a Conv1D"):
        private(gpt(), "hooks", spectrum={"model.transformer.h.0.attn.c_attn": DCTLowPass(0.5)})


def test_attention_of_torch_is_refused_with_its_remedy() -> None:
    with pytest.raises(SettingError, match=r"ModuleValidator\.fix"):
        private(Encoder(), "hooks")


@pytest.mark.parametrize(
    "option", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}], ids=lambda o: next(iter(o))
)
def test_embeddings_whose_rows_depend_on_the_batch_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="the embedding 'model'"):
        private(FromTransformers(nn.Embedding(11, 3, **option)), "hooks")


def test_norms_of_an_embedding_leave_its_padding_out() -> None:
    layer = nn.Embedding(5, 4, padding_idx=0)
    tokens = torch.randint(5, (3, 2, 6), generator=torch.Generator().manual_seed(0))
    weights = torch.randn(3, 2, 6, 4)
    expected = [
        torch.autograd.grad((layer(one) * w).sum(), layer.weight)[0].norm()
        for one, w in zip(tokens, weights, strict=True)
    ]
    assert (tokens == 0).any()
    found = embedding_norm_sample(layer, [tokens], weights)[layer.weight]
    torch.testing.assert_close(found, torch.stack(expected))
    assert embedding_norm_sample(layer, [tokens[:0]], weights[:0])[layer.weight].shape == (0,)

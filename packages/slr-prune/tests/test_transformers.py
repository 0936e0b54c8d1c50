"""The transformers callback against the plain loop, and resumed against undisturbed."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slr_prune import GradualPruner, Pruner, SLRPruner
from tenfold import CheckpointError, MissingExtraError, SettingError

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate", reason="the Trainer needs it")

from slr_prune.transformers import STATE_FILE, PrunerTrainerCallback  # noqa: E402

BATCHES, SIZE, RATE = 6, 4, 0.05
LAYERS = {"bert.encoder.*": 0.7}


def network() -> nn.Module:
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=3,
    )
    model = transformers.BertForSequenceClassification(config)
    assert isinstance(model, nn.Module)
    return model


def examples() -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 40, (BATCHES * SIZE, 8), generator=generator)
    return [{"input_ids": row, "labels": row[0] % 3} for row in tokens]


def mean_loss(outputs: Any, labels: Tensor, num_items_in_batch: Tensor) -> Tensor:
    """Without it the Trainer sums the losses of accumulated batches of this model."""
    return F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch


class InOrder(transformers.Trainer):  # type: ignore[misc,name-defined]
    """The Trainer, without shuffling."""

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


def train(
    callback: PrunerTrainerCallback,
    folder: Path,
    *,
    epochs: int = 4,
    resume: str | None = None,
    rate: float = RATE,
    **settings: Any,
) -> nn.Module:
    model = network()
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=SIZE,
        learning_rate=rate,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **{"save_strategy": "no", "max_grad_norm": 0.5, "logging_steps": 4, **settings},
    )
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    InOrder(
        model,
        arguments,
        train_dataset=examples(),
        callbacks=[callback],
        optimizers=(optimizer, None),
        compute_loss_func=mean_loss,
    ).train(resume_from_checkpoint=resume)
    return model


def plain(
    make: Callable[[nn.Module], Pruner], *, accumulate: int = 1, prune_epochs: int | None = None
) -> tuple[nn.Module, Pruner]:
    model = network().train()
    pruner = make(model)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
    batches = [
        {key: torch.stack([item[key] for item in batch]) for key in batch[0]}
        for batch in (examples()[start : start + SIZE] for start in range(0, BATCHES * SIZE, SIZE))
    ]
    for epoch in range(4):
        total = 0.0
        for index, batch in enumerate(batches):
            loss = model(**batch).loss
            total += loss.item() / BATCHES
            (loss / accumulate).backward()
            if (index + 1) % accumulate == 0:
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                pruner.add_gradient()
                optimizer.step()
                pruner.constrain()
                optimizer.zero_grad()
        pruner.step(total)
        if epoch + 1 == prune_epochs:
            pruner.finalize()
    if prune_epochs is None:
        pruner.finalize()
    return model, pruner


class Recording(SLRPruner):
    """Keeps the losses it was given."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.losses: list[float] = []

    def step(self, loss: float) -> None:
        super().step(loss)
        self.losses.append(loss)


def slr(model: nn.Module) -> Recording:
    return Recording(model, LAYERS, rho=0.5)


@pytest.mark.parametrize(
    ("make", "accumulate", "prune_epochs"),
    [
        (slr, 1, None),
        (slr, 3, None),
        (slr, 1, 2),
        (lambda model: GradualPruner(model, LAYERS, steps=9, every=2), 3, None),
    ],
    ids=["slr", "accumulated", "retrained", "gradual"],
)
def test_the_plain_loop_is_reproduced(
    make: Callable[[nn.Module], Pruner], accumulate: int, prune_epochs: int | None, tmp_path: Path
) -> None:
    callback = PrunerTrainerCallback(make, prune_epochs)
    model = train(callback, tmp_path, gradient_accumulation_steps=accumulate)
    expected, pruner = plain(make, accumulate=accumulate, prune_epochs=prune_epochs)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    weight = model.get_parameter("bert.encoder.layer.0.output.dense.weight")
    assert (weight == 0).sum() == round(0.7 * weight.numel())
    if isinstance(pruner, SLRPruner):
        assert isinstance(callback.pruner, Recording)
        assert callback.pruner.k == pruner.k > (2 if prune_epochs else 4)
        assert callback.pruner.s == pytest.approx(pruner.s, rel=1e-3)
        # transformers 4 rounds the losses in its log to four digits
        assert isinstance(pruner, Recording)
        assert callback.pruner.losses == pytest.approx(pruner.losses, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "step"),
    [
        ({"save_strategy": "epoch"}, 12),
        ({"save_strategy": "steps", "save_steps": 5}, 10),
        ({"save_strategy": "steps", "save_steps": 6}, 12),
        ({"save_strategy": "steps", "save_steps": 6}, 24),
    ],
    ids=["epoch end", "mid epoch", "last step", "end of run"],
)
def test_a_resumed_run_is_the_undisturbed_one(settings: dict[str, Any], step: int, tmp_path: Path) -> None:
    callback, other = (PrunerTrainerCallback(slr, prune_epochs=3) for _ in range(2))
    whole = train(callback, tmp_path, **settings)
    again = train(other, tmp_path, resume=str(tmp_path / f"checkpoint-{step}"), **settings)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert isinstance(callback.pruner, Recording)
    assert isinstance(other.pruner, Recording)
    assert other.pruner.k == callback.pruner.k
    assert other.pruner.s == callback.pruner.s
    later = other.pruner.losses
    assert len(later) == 4 - (step - 1) // BATCHES - ("epoch" in settings.values())
    assert later == pytest.approx(callback.pruner.losses[4 - len(later) :], abs=1e-4)
    for name in callback.pruner.weights:
        assert torch.equal(other.pruner.multipliers[name], callback.pruner.multipliers[name])
        assert torch.equal(other.pruner.masks[name], callback.pruner.masks[name])


class Watched(PrunerTrainerCallback):
    """Looks for zeros after every step."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.zeros: list[Tensor] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        name = "bert.encoder.layer.0.output.dense.weight"
        self.zeros.append(kwargs["model"].get_parameter(name) == 0)
        return super().on_step_end(args, state, control, **kwargs)


def test_momentum_revives_nothing_and_the_budget_is_kept(tmp_path: Path) -> None:
    callback = Watched(slr, prune_epochs=2)
    train(callback, tmp_path, epochs=5)
    assert len(callback.zeros) == 5 * BATCHES
    assert not callback.zeros[2 * BATCHES - 1].any()
    for zeros in callback.zeros[2 * BATCHES :]:
        assert zeros.sum() == round(0.7 * zeros.numel())
        assert torch.equal(zeros, callback.zeros[-1])
    assert isinstance(callback.pruner, SLRPruner)
    assert len(callback.pruner.history) == 2


def test_the_state_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    train(PrunerTrainerCallback(slr), tmp_path, save_strategy="epoch", epochs=3)
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "checkpoint-12", moved)
    shutil.copy(tmp_path / "checkpoint-6" / STATE_FILE, tmp_path / "checkpoint-12" / STATE_FILE)
    with pytest.raises(CheckpointError, match="other weights"):
        train(PrunerTrainerCallback(slr), tmp_path, resume=str(moved))
    train(PrunerTrainerCallback(slr, resume_from=moved), tmp_path, resume=str(moved))

    shutil.rmtree(tmp_path / "checkpoint-12")
    with pytest.raises(CheckpointError, match="resume_from"):
        train(PrunerTrainerCallback(slr), tmp_path, resume=str(moved))


def test_a_budget_of_no_epochs_is_refused() -> None:
    with pytest.raises(SettingError, match="prune_epochs is 0"):
        PrunerTrainerCallback(slr, prune_epochs=0)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "slr_prune.transformers")
    with pytest.raises(MissingExtraError, match=r"pip install 'slr-prune\[transformers\]'"):
        __import__("slr_prune.transformers")

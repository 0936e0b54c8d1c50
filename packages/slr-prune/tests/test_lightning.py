"""The Lightning callback against the plain loop, and resumed against undisturbed."""

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from slr_prune import ADMMPruner, GradualPruner, OneShotPruner, Pruner, SLRPruner
from tenfold import DivergedError, MissingExtraError, SettingError

lightning = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.plugins import MixedPrecision  # noqa: E402

from slr_prune.lightning import PrunerCallback  # noqa: E402

BATCHES, SIZE = 6, 8


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 3))


def examples() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCHES * SIZE, 10, generator=generator)
    return TensorDataset(x, (x @ torch.randn(10, 3, generator=generator)).argmax(1))


class Module(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return F.cross_entropy(self.net(x).float(), y)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self.net(batch[0]).float(), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)


class ManualModule(Module):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        return loss


class ResumableLoader(DataLoader[Any]):
    """Goes on in the middle of an epoch."""

    position = 0

    def __iter__(self) -> Iterator[Any]:
        start, self.position = self.position, 0
        for index, batch in enumerate(super().__iter__()):
            if index >= start:
                self.position = (index + 1) % len(self)
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


def loader() -> ResumableLoader:
    return ResumableLoader(examples(), batch_size=SIZE)


def fit(module: Any, callbacks: list[Any], epochs: int, ckpt: str | None = None, **settings: Any) -> Any:
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        max_epochs=epochs,
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, **settings},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = (loader(), loader()) if settings.get("enable_checkpointing") else (loader(), None)
        trainer.fit(module, *data, ckpt_path=ckpt)
    return trainer


def plain(
    make: Callable[[nn.Module], Pruner],
    epochs: int,
    *,
    accumulate: int = 1,
    clip: float | None = None,
    prune_epochs: int | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> tuple[nn.Sequential, Pruner]:
    """The loop of the package's documentation; the penalty by autograd unless there is a scaler."""
    net = network()
    pruner = make(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    for epoch in range(epochs):
        total = 0.0
        for index, (x, y) in enumerate(DataLoader(examples(), batch_size=SIZE)):
            with torch.autocast("cpu", torch.float16, enabled=scaler is not None):
                loss = F.cross_entropy(net(x).float(), y)
            total += loss.item() / BATCHES
            (loss / accumulate if scaler is None else scaler.scale(loss)).backward()
            if (index + 1) % accumulate == 0:
                if scaler is None:
                    pruner.penalty().backward() if pruner.penalty().requires_grad else None
                else:
                    scaler.unscale_(optimizer)
                    pruner.add_gradient()
                if clip is not None:
                    nn.utils.clip_grad_norm_(net.parameters(), clip)
                if scaler is None:
                    optimizer.step()
                else:
                    scaler.step(optimizer)
                    scaler.update()
                pruner.constrain()
                optimizer.zero_grad()
        pruner.step(total)
        if epoch + 1 == prune_epochs:
            pruner.finalize()
    if prune_epochs is None:
        pruner.finalize()
    return net, pruner


def assert_same(one: nn.Module, two: nn.Module, **tolerance: float) -> None:
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, **(tolerance or {"rtol": 1e-5, "atol": 1e-6}))


@pytest.mark.parametrize(
    "make",
    [
        lambda net: SLRPruner(net, 0.7, rho=0.5),
        lambda net: ADMMPruner(net, 0.7, rho=0.5),
        lambda net: GradualPruner(net, 0.7, steps=9, every=2),
        lambda net: OneShotPruner(net, 0.7),
    ],
    ids=["slr", "admm", "gradual", "oneshot"],
)
@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_plain_loop_is_reproduced(
    make: Callable[[nn.Module], Pruner], clip: float | None, accumulate: int
) -> None:
    module = Module()
    callback = PrunerCallback(lambda module: make(module.net))
    fit(module, [callback], 4, accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    net, pruner = plain(make, 4, accumulate=accumulate, clip=clip)
    assert_same(module.net, net)
    assert (module.net[0].weight == 0).sum() == round(0.7 * 160)
    if isinstance(pruner, SLRPruner):
        assert callback.pruner is not None
        assert callback.pruner.k == pruner.k > 4
        assert callback.pruner.state_dict()["loss"] == pytest.approx(pruner.state_dict()["loss"], rel=1e-5)


def slr(module: Any) -> SLRPruner:
    return SLRPruner(getattr(module, "net", module), 0.7, rho=0.5)


def test_manual_optimization_is_reproduced() -> None:
    module = ManualModule()
    fit(module, [PrunerCallback(slr)], 3)
    assert_same(module.net, plain(slr, 3)[0])


def test_retraining_stays_under_the_masks() -> None:
    module = Module()
    fit(module, [PrunerCallback(slr, prune_epochs=2)], 4)
    net, _ = plain(slr, 4, prune_epochs=2)
    assert_same(module.net, net)
    stopped, _ = plain(slr, 2)
    assert torch.equal(stopped[0].weight == 0, module.net[0].weight == 0)
    assert not torch.equal(stopped[0].weight, module.net[0].weight)


class Watch(lightning.Callback):
    """Counts the zeros after every batch."""

    def __init__(self) -> None:
        self.zeros: list[Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.zeros.append(pl_module.net[0].weight == 0)


def test_momentum_revives_nothing_and_the_budget_is_kept() -> None:
    callback, watch = PrunerCallback(slr, prune_epochs=2), Watch()
    fit(Module(), [callback, watch], 5)
    assert len(watch.zeros) == 5 * BATCHES
    assert not watch.zeros[2 * BATCHES - 1].any()
    for zeros in watch.zeros[2 * BATCHES :]:
        assert zeros.sum() == round(0.7 * 160)
        assert torch.equal(zeros, watch.zeros[-1])
    assert isinstance(callback.pruner, SLRPruner)
    assert len(callback.pruner.history) == 2


def test_the_penalty_is_not_scaled_with_the_loss() -> None:
    module = Module()
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=256.0))
    fit(module, [PrunerCallback(slr)], 3, plugins=[precision], gradient_clip_val=0.5)
    net, _ = plain(slr, 3, clip=0.5, scaler=torch.amp.GradScaler("cpu", init_scale=256.0))
    assert_same(module.net, net, rtol=1e-4, atol=1e-5)


CHECKPOINTS = {
    "epoch end": ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, "epoch=1-*.ckpt"),
    "validation end": ({"every_n_epochs": 1, "save_on_train_epoch_end": False}, "epoch=1-*.ckpt"),
    "last batch": ({"every_n_train_steps": BATCHES}, f"*step={2 * BATCHES}.ckpt"),
    "mid epoch": ({"every_n_train_steps": 4}, "*step=8.ckpt"),
    "end of run": ({"every_n_epochs": 1, "save_on_train_epoch_end": True}, "epoch=4-*.ckpt"),
    "last epoch": ({"every_n_epochs": 1, "save_on_train_epoch_end": False}, "epoch=4-*.ckpt"),
}


@pytest.mark.parametrize("when", CHECKPOINTS)
@pytest.mark.parametrize("prune_epochs", [None, 3])
def test_a_resumed_run_is_the_undisturbed_one(when: str, prune_epochs: int | None, tmp_path: Path) -> None:
    settings, pattern = CHECKPOINTS[when]
    whole, callback = Module(), PrunerCallback(slr, prune_epochs)
    saver = ModelCheckpoint(dirpath=tmp_path, save_top_k=-1, **settings)
    fit(whole, [callback, saver], 5, enable_checkpointing=True)
    (path,) = tmp_path.glob(pattern)

    again, other = Module(), PrunerCallback(slr, prune_epochs)
    fit(again, [other], 5, ckpt=str(path), enable_checkpointing=True, default_root_dir=tmp_path)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert isinstance(callback.pruner, SLRPruner)
    assert isinstance(other.pruner, SLRPruner)
    assert other.pruner.k == callback.pruner.k
    assert other.pruner.s == callback.pruner.s
    assert other.pruner.state_dict()["loss"] == callback.pruner.state_dict()["loss"]
    for name in callback.pruner.weights:
        assert torch.equal(other.pruner.multipliers[name], callback.pruner.multipliers[name])
        assert torch.equal(other.pruner.masks[name], callback.pruner.masks[name])


def test_fitting_on_keeps_the_pruner_and_another_module_gets_its_own() -> None:
    module, callback = Module(), PrunerCallback(slr)
    fit(module, [callback], 1)
    first, zeros = callback.pruner, module.net[0].weight == 0
    fit(module, [callback], 2)
    assert callback.pruner is first
    assert torch.equal(module.net[0].weight == 0, zeros)
    fit(Module(), [callback], 1)
    assert callback.pruner is not first


def test_a_diverged_loss_ends_the_fit() -> None:
    module = Module()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 1e30)
    with pytest.raises(DivergedError, match="learning rate"):
        fit(module, [PrunerCallback(slr)], 2)


def test_weights_in_two_optimizers_are_refused() -> None:
    module = ManualModule()
    module.configure_optimizers = lambda: [
        torch.optim.SGD(layer.parameters(), 0.1) for layer in (module.net[0], module.net[2])
    ]
    with pytest.raises(SettingError, match="2 of the module's optimizers"):
        fit(module, [PrunerCallback(slr)], 1)


def test_a_budget_of_no_epochs_is_refused() -> None:
    with pytest.raises(SettingError, match="prune_epochs is 0"):
        PrunerCallback(slr, prune_epochs=0)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    monkeypatch.delitem(sys.modules, "slr_prune.lightning")
    with pytest.raises(MissingExtraError, match=r"pip install 'slr-prune\[lightning\]'"):
        __import__("slr_prune.lightning")

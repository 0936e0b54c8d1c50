import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from opacus import PrivacyEngine
from opacus.optimizers import DPOptimizer
from opacus.utils.batch_memory_manager import BatchMemoryManager
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset, WeightedRandomSampler

from spectral_dp import (
    BlockCirculantLinear,
    DCTLowPass,
    FFTLowPass,
    Projection,
    PublicSubspace,
    SpectralPrivacyEngine,
)
from tenfold import DivergedError, SettingError, TenfoldError, UnknownNameError

MODES = ["hooks", "ghost"]
SPECTRUM: dict[str, Projection] = {"conv": FFTLowPass(0.7), "fc": DCTLowPass(0.5, (4, 4, 4))}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.fc = nn.Linear(64, 12)
        self.head = BlockCirculantLinear(12, 5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.fc(torch.tanh(self.conv(x)).flatten(1))))


def data(samples: int = 60) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(samples, 1, 8, 8, generator=generator), torch.randint(5, (samples,), generator=generator)
    )


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def private(engine: PrivacyEngine, model: nn.Module | None = None, **changes: Any) -> tuple[Any, ...]:
    model = net() if model is None else model
    options: dict[str, Any] = {
        "module": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9),
        "data_loader": DataLoader(data(), batch_size=12),
        "noise_multiplier": 1.0,
        "max_grad_norm": 0.4,
        **changes,
    }
    if options.get("grad_sample_mode") != "ghost":
        return (*(made := engine.make_private(**options))[:2], nn.CrossEntropyLoss(), made[-1])
    return engine.make_private(**options)


def train(made: tuple[Any, ...], steps: int = 20) -> tuple[Tensor, list[float]]:
    model, optimizer, criterion, loader = made
    losses: list[float] = []
    while len(losses) < steps:
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return nn.utils.parameters_to_vector(p.detach() for p in model.parameters()), losses


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "spectrum", [{}, {"conv": FFTLowPass(1.0), "fc": DCTLowPass(1.0), "head": FFTLowPass(1.0)}]
)
def test_ratio_one_is_opacus_given_the_same_noise(mode: str, spectrum: dict[str, Projection]) -> None:
    ours, theirs = SpectralPrivacyEngine(not_private=True), PrivacyEngine()
    same: dict[str, Any] = {"poisson_sampling": False, "grad_sample_mode": mode}
    mine, my_losses = train(private(ours, spectrum=spectrum, noise_generator=seeded(), **same))
    opacus, losses = train(private(theirs, criterion=nn.CrossEntropyLoss(), noise_generator=seeded(), **same))
    torch.testing.assert_close(mine, opacus, atol=1e-6, rtol=1e-6)
    assert my_losses == pytest.approx(losses, abs=1e-5)
    assert ours.accountant.history == theirs.accountant.history
    assert (mine - nn.utils.parameters_to_vector(net().parameters())).norm() > 1


@pytest.mark.parametrize("order", ["filter-clip-noise", "clip-noise-filter"])
@pytest.mark.parametrize("mode", MODES)
def test_an_update_is_the_filtered_sum_of_clipped_gradients(mode: str, order: str) -> None:
    engine = SpectralPrivacyEngine(not_private=True)
    model = net()
    start = nn.utils.parameters_to_vector(p.detach().clone() for p in model.parameters())
    made = private(
        engine,
        model,
        spectrum=SPECTRUM,
        order=order,
        noise_multiplier=0.0,
        grad_sample_mode=mode,
        poisson_sampling=False,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        data_loader=DataLoader(data(6), batch_size=6),
    )
    end, _ = train(made, steps=1)

    total = torch.zeros_like(start)
    for x, y in data(6):
        reference = net()
        nn.functional.cross_entropy(reference(x[None]), y[None]).backward()

        def filtered(reference: Net = reference) -> Tensor:
            reference.conv.weight.grad = FFTLowPass(0.7, (3, 3))(reference.conv.weight.grad)
            reference.fc.weight.grad = SPECTRUM["fc"](reference.fc.weight.grad)
            return nn.utils.parameters_to_vector(p.grad for p in reference.parameters())

        whole = nn.utils.parameters_to_vector(p.grad for p in reference.parameters())
        norm = filtered().norm() if order == "filter-clip-noise" else whole.norm()
        assert norm > 0.4
        total += filtered() * 0.4 / norm
    torch.testing.assert_close(start - end, total / 6, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_weights_stay_in_the_range_of_their_projection(mode: str) -> None:
    model = net()
    before = model.fc.weight.detach().clone()
    train(private(SpectralPrivacyEngine(), model, spectrum=SPECTRUM, grad_sample_mode=mode), steps=3)
    change = model.fc.weight.detach() - before
    assert change.norm() > 0.1
    torch.testing.assert_close(SPECTRUM["fc"](change), change, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_split_batches_equal_whole_ones(mode: str) -> None:
    ends = []
    for physical in (100, 4):
        engine = SpectralPrivacyEngine(not_private=True)
        made = private(
            engine,
            spectrum=SPECTRUM,
            grad_sample_mode=mode,
            noise_generator=seeded(),
            data_loader=DataLoader(data(), batch_size=12, generator=torch.Generator().manual_seed(1)),
        )
        model, optimizer, criterion, loader = made
        with BatchMemoryManager(
            data_loader=loader, max_physical_batch_size=physical, optimizer=optimizer
        ) as parts:
            end, _ = train((model, optimizer, criterion, parts), steps=1)
        ends.append(end)
        ((noise, rate, steps),) = engine.accountant.history
        assert (noise, rate, steps) == (1.0, 0.2, 5)
    torch.testing.assert_close(ends[0], ends[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_empty_batches_are_noise_alone(mode: str) -> None:
    model = net()
    before = model.fc.weight.detach().clone()
    made = private(
        SpectralPrivacyEngine(),
        model,
        spectrum=SPECTRUM,
        grad_sample_mode=mode,
        data_loader=DataLoader(data(40), batch_size=1),
    )
    sizes = []
    model_, optimizer, criterion, loader = made
    for x, y in loader:
        if not len(x):
            optimizer.zero_grad()
            criterion(model_(x.view(0, 1, 8, 8)), y.view(0).long()).backward()
            optimizer.step()
        sizes.append(len(x))
    assert 0 in sizes
    assert (model.fc.weight - before).norm() > 0.1


def test_batches_and_noise_do_not_follow_the_seed() -> None:
    ends = []
    for _ in range(2):
        made = private(SpectralPrivacyEngine())
        torch.manual_seed(0)
        ends.append([len(y) for _, y in made[-1]])
    _, optimizer, *_ = made
    assert optimizer.generator is None
    assert ends[0] != ends[1] or [len(y) for _, y in made[-1]] != ends[0]


@pytest.mark.parametrize("accountant", ["prv", "rdp", "gdp"])
def test_the_budget_is_met_with_every_accountant(accountant: str) -> None:
    engine = SpectralPrivacyEngine(accountant=accountant)
    model = net()
    assert engine.get_epsilon(1e-3) == 0
    module, optimizer, loader = engine.make_private_with_epsilon(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        data_loader=DataLoader(data(), batch_size=12),
        target_epsilon=3.0,
        target_delta=1e-3,
        epochs=2,
        max_grad_norm=1.0,
        spectrum=SPECTRUM,
    )
    train((module, optimizer, nn.CrossEntropyLoss(), loader), steps=2 * len(loader))
    assert engine.get_epsilon(1e-3) == pytest.approx(3.0, abs=0.02)


@pytest.mark.parametrize("mode", MODES)
def test_a_checkpoint_resumes_with_the_same_epsilon(mode: str, tmp_path: Path) -> None:
    first = SpectralPrivacyEngine()
    made = private(first, spectrum=SPECTRUM, grad_sample_mode=mode)
    end, _ = train(made, steps=5)
    first.save_checkpoint(path=tmp_path / "state.pt", module=made[0], optimizer=made[1])

    second = SpectralPrivacyEngine()
    other = private(second, net(1), spectrum=SPECTRUM, grad_sample_mode=mode)
    second.load_checkpoint(path=tmp_path / "state.pt", module=other[0], optimizer=other[1])
    assert torch.equal(nn.utils.parameters_to_vector(other[0].parameters()), end)
    assert second.get_epsilon(1e-5) == first.get_epsilon(1e-5)
    train(other, steps=5)
    assert second.get_epsilon(1e-5) > first.get_epsilon(1e-5)


def test_adam_and_patterns_work() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 5))
    made = private(
        SpectralPrivacyEngine(),
        model,
        spectrum={"[13]": FFTLowPass(0.5)},
        grad_sample_mode="ghost",
        optimizer=torch.optim.Adam(model.parameters()),
    )
    assert {projection.size for projection in made[1].projections.values()} == {16, 64}
    train(made, steps=2)


@pytest.mark.parametrize("mode", MODES)
def test_a_gradient_that_is_not_finite_is_refused_before_it_costs_anything(mode: str) -> None:
    engine = SpectralPrivacyEngine()
    model, optimizer, criterion, _ = private(engine, spectrum=SPECTRUM, grad_sample_mode=mode)
    before = nn.utils.parameters_to_vector(p.detach().clone() for p in model.parameters())
    x, y = data()[:4]
    x[2, 0, 3, 3] = math.nan

    def step() -> None:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()

    with pytest.raises(DivergedError, match="NaN"):
        step()
    assert not engine.accountant.history
    assert torch.equal(nn.utils.parameters_to_vector(model.parameters()), before)


class Complex(Net):
    def __init__(self) -> None:
        super().__init__()
        self.phase = nn.Parameter(torch.zeros(3, dtype=torch.complex64))


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(64, 12)
        self.again.weight = self.fc.weight


class Gain(Net):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(5))


def loader_of(**options: Any) -> DataLoader[Any]:
    return DataLoader(data(), **options)


BASIS = torch.eye(64)[:3]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "batch norm": ({"module": nn.Sequential(Net(), nn.BatchNorm1d(5))}, r"ModuleValidator.fix"),
    "evaluation mode": ({"module": Net().eval()}, "training mode"),
    "complex": ({"module": Complex()}, "complex"),
    "circular padding": (
        {"module": nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"))},
        "padding_mode",
    ),
    "tied in ghost mode": ({"module": Tied(), "grad_sample_mode": "ghost"}, "shares 'weight'"),
    "tied and filtered": ({"module": Tied(), "spectrum": {"fc": FFTLowPass(0.5)}}, "shared between"),
    "inside another layer": (
        {"module": Gain(), "spectrum": SPECTRUM, "grad_sample_mode": "ghost"},
        "no sampler knows",
    ),
    "optimizer of another model": (
        {"optimizer": torch.optim.SGD(Net().parameters(), lr=1.0)},
        "does not have",
    ),
    "weighted": (
        {"data_loader": loader_of(batch_size=12, sampler=WeightedRandomSampler([1.0] * 60, 60))},
        "WeightedRandomSampler",
    ),
    "own batches": (
        {
            "data_loader": loader_of(
                batch_sampler=type("Mine", (BatchSampler,), {})(SequentialSampler(data()), 6, True)
            )
        },
        "Mine",
    ),
    "no Poisson sampling": ({"poisson_sampling": False}, "Poisson sampling, which the accountant assumes"),
    "seeded noise": ({"noise_generator": torch.Generator()}, "nobody can replay"),
    "unknown layer": ({"spectrum": {"fc1": FFTLowPass(0.5)}}, "no layer is named 'fc1'"),
    "not a linear layer": ({"spectrum": {"": FFTLowPass(0.5)}}, "is a Net"),
    "named twice": ({"spectrum": {"fc": FFTLowPass(0.5), "f*": FFTLowPass(0.5)}}, "named twice"),
    "another size": ({"spectrum": {"fc": FFTLowPass(0.5, (28, 28))}}, "784 entries"),
    "a bare tensor": ({"spectrum": {"fc": BASIS}}, "provenance"),
    "not charged": ({"spectrum": {"fc": PublicSubspace(BASIS, "charged")}}, "charged for nothing"),
    "noise": ({"noise_multiplier": math.nan}, "noise_multiplier is nan"),
    "bound": ({"max_grad_norm": 0.0}, "max_grad_norm is 0"),
    "bounds": ({"max_grad_norm": [1.0, 1.0]}, "one positive number"),
    "mode": ({"grad_sample_mode": "ew"}, "grad_sample_mode"),
    "clipping": ({"clipping": "adaptive"}, "clipping"),
    "order": ({"order": "noise-clip-filter"}, "order"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_anything_is_spent_or_changed(case: str) -> None:
    changes, message = BAD[case]
    engine = SpectralPrivacyEngine()
    model = changes.get("module", net())
    with pytest.raises(TenfoldError, match=message):
        private(engine, model, **changes)
    assert not engine.accountant.history
    assert not any(layer._forward_hooks for layer in model.modules())


def test_what_the_messages_advise_works() -> None:
    fixed = ModuleValidator.fix(
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))
    )
    train(private(SpectralPrivacyEngine(), fixed, spectrum={"0": FFTLowPass(0.7)}), steps=1)

    engine = SpectralPrivacyEngine()
    engine.accountant.step(noise_multiplier=2.0, sample_rate=0.1)
    train(private(engine, spectrum={"fc": PublicSubspace(BASIS, "charged")}), steps=1)

    train(
        private(SpectralPrivacyEngine(), poisson_sampling=False, data_loader=loader_of(batch_size=60)),
        steps=1,
    )
    made = private(SpectralPrivacyEngine())
    train(private(SpectralPrivacyEngine(), data_loader=made[-1]), steps=1)
    with pytest.raises(SettingError, match="private already"):
        private(SpectralPrivacyEngine(), made[0])


def test_an_engine_for_tests_says_so() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SpectralPrivacyEngine().get_epsilon(1e-5) == 0
    with pytest.warns(UserWarning, match="not private"):
        SpectralPrivacyEngine(not_private=True).get_epsilon(1e-5)


@pytest.mark.parametrize("budget", [(0.0, 1e-5, 1), (1.0, 0.0, 1), (1.0, 1.0, 1), (1.0, 1e-5, 0)])
def test_impossible_budgets_are_refused(budget: tuple[float, float, int]) -> None:
    epsilon, delta, epochs = budget
    with pytest.raises(SettingError, match="epochs"):
        SpectralPrivacyEngine().make_private_with_epsilon(
            data_loader=loader_of(batch_size=12), target_epsilon=epsilon, target_delta=delta, epochs=epochs
        )


def test_the_optimizer_is_opacus_own() -> None:
    for mode in MODES:
        assert isinstance(private(SpectralPrivacyEngine(), grad_sample_mode=mode)[1], DPOptimizer)
    with pytest.raises(UnknownNameError):
        private(SpectralPrivacyEngine(), grad_sample_mode="gost")

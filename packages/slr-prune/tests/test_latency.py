"""Timing, and the search for a sparsity, mostly without a clock."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slr_prune import cost, latency, sparsity_for_latency
from slr_prune._latency import _bisect
from tenfold import SettingError, UnknownNameError

X = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))


def network(width: int = 50) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 3))


def macs(model: nn.Module) -> float:
    return float(cost(model, X).macs)


def test_the_median_of_the_timed_calls_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.chain.from_iterable((10.0, 10.0 + seconds) for seconds in (0.9, 0.1, 0.3))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert latency(network(), X, repeats=3, warmup=1) == pytest.approx(300)


def test_warmup_calls_come_before_the_timed_ones() -> None:
    calls = 0

    class Counting(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            assert not self.training
            assert not torch.is_grad_enabled()
            return x

    model = Counting().train()
    assert latency(model, X, repeats=4, warmup=2) >= 0
    assert calls == 6
    assert model.training


def test_threads_are_those_asked_for_and_restored() -> None:
    seen = []

    class Reading(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.get_num_threads())
            return x

    before = torch.get_num_threads()
    latency(Reading(), X, repeats=1, warmup=1, threads=before + 1)
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("settings", [{"repeats": 0}, {"warmup": 0}, {"threads": 0}])
def test_impossible_timings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(SettingError, match="a whole number from"):
        latency(network(), X, **settings)  # type: ignore[arg-type]


def test_a_real_model_is_slower_than_a_part_of_it() -> None:
    large = nn.Sequential(*(nn.Linear(512, 512) for _ in range(8)))
    x = torch.randn(64, 512)
    assert latency(large, x, threads=1) > 2 * latency(large[:2], x, threads=1) > 0


@given(st.integers(1, 99), st.floats(0.0, 0.9))
@settings(deadline=None)
def test_bisection_finds_the_first_step_that_meets(first: int, flat: float) -> None:
    def time_at(step: int) -> float:
        return flat if step >= first else 1.0 + (first - step)

    tried: list[int] = []

    def counted(step: int) -> float:
        tried.append(step)
        return time_at(step)

    assert _bisect(counted, 0.95, []) == first
    assert len(tried) <= 8


@pytest.mark.parametrize("speedup", [1.5, 2.0, 7.0])
def test_the_least_sparsity_is_found(speedup: float) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    found = sparsity_for_latency(model, X, speedup=speedup, measure=macs)
    assert found.dense_milliseconds == macs(model)
    assert found.speedup >= speedup
    assert found.milliseconds == 2 * 11 * round(50 * (1 - found.sparsity))
    # One channel more, and the target is missed.
    assert found.milliseconds + 2 * 11 > found.target_milliseconds
    assert found.points[0] == (0.0, found.dense_milliseconds)
    assert found.points[-1] == (found.sparsity, found.milliseconds)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_milliseconds_ask_for_the_same_as_a_speedup() -> None:
    dense = macs(network())
    one = sparsity_for_latency(network(), X, milliseconds=dense / 4, measure=macs)
    assert one == sparsity_for_latency(network(), X, speedup=4, measure=macs)


def test_round_to_and_ignored_layers_are_respected() -> None:
    model = nn.Sequential(nn.Linear(8, 48), nn.ReLU(), nn.Linear(48, 40), nn.ReLU(), nn.Linear(40, 3))
    widths = []

    def measure(candidate: nn.Module) -> float:
        assert isinstance(candidate, nn.Sequential)
        first, second = candidate[0], candidate[2]
        assert isinstance(first, nn.Linear)
        assert isinstance(second, nn.Linear)
        widths.append(first.out_features)
        assert second.out_features == 40
        return macs(candidate)

    sparsity_for_latency(model, X, speedup=1.5, round_to=8, ignored_layers=["2"], measure=measure)
    assert len(set(widths)) > 2
    assert all(width % 8 == 0 for width in widths)


def test_a_dense_model_that_is_fast_enough_stays_dense() -> None:
    found = sparsity_for_latency(network(), X, speedup=0.5, measure=macs)
    assert (found.sparsity, found.speedup, len(found.points)) == (0.0, 1.0, 1)


def test_a_target_out_of_reach_names_the_fastest() -> None:
    with pytest.raises(SettingError, match=r"22 ms or more, the fastest .* \(at sparsity 0\.99\)"):
        sparsity_for_latency(network(), X, speedup=1000, measure=macs)


def noisy(lucky: Callable[[int], bool]) -> Callable[[nn.Module], float]:
    """Return MACs, halved at the calls that `lucky` names."""
    calls = itertools.count()
    return lambda model: macs(model) / (2 if lucky(next(calls)) else 1)


def test_a_lucky_measurement_is_not_believed() -> None:
    honest = sparsity_for_latency(network(), X, speedup=3, measure=macs)
    found = sparsity_for_latency(network(), X, speedup=3, measure=noisy(lambda call: 1 < call < 8))
    assert found.milliseconds <= found.target_milliseconds
    assert macs(network()) / found.speedup == found.milliseconds
    assert found.sparsity == honest.sparsity
    # The bisection ended lower, and the steps up to what truly meets the target were taken one by one.
    assert len(found.points) > len(honest.points)


def test_noise_up_to_the_end_is_an_error() -> None:
    calls = itertools.count()
    with pytest.raises(SettingError, match="fastest that was measured"):
        sparsity_for_latency(
            network(), X, milliseconds=5, measure=lambda _: {0: 10.0, 1: 4.0}.get(next(calls), 10.0)
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of the two"),
        ({"milliseconds": 1.0, "speedup": 2.0}, "exactly one of the two"),
        ({"speedup": 0.0}, "above 0"),
        ({"milliseconds": float("nan")}, "above 0"),
        ({"speedup": 2.0, "structure": "irregular"}, "coupled"),
    ],
)
def test_impossible_searches_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        sparsity_for_latency(network(), X, measure=macs, **arguments)  # type: ignore[arg-type]


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="layer"):
        sparsity_for_latency(network(), X, speedup=2, ignored_layers=["head"], measure=macs)


def test_the_clock_is_used_when_nothing_else_is_given() -> None:
    model = nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512))
    found = sparsity_for_latency(model, torch.randn(32, 512), speedup=2)
    assert 0 < found.sparsity < 0.99
    assert found.milliseconds <= found.target_milliseconds

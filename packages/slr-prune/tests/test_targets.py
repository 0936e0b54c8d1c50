"""Layer-wise targets meet the global sparsity, and are what they claim to be."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from slr_prune import (
    OneShotPruner,
    SensitivityScan,
    erk,
    from_sensitivity,
    get_structure,
    global_magnitude,
    sensitivity_scan,
    uniform,
)
from tenfold import DivergedError, SettingError, UnknownNameError


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(128, 10)
    )


def sizes(model: nn.Module) -> dict[str, int]:
    return {
        name: module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }


def removed(targets: dict[str, float], size: dict[str, int]) -> float:
    return sum(targets.get(name, 0.0) * count for name, count in size.items())


def test_uniform() -> None:
    assert uniform(network(), 0.7, ignored_layers=["0"]) == {"3": 0.7, "5": 0.7}


@given(st.floats(0.01, 0.99))
@settings(max_examples=50, deadline=None)
def test_erk_meets_the_total_and_keeps_the_proportions(sparsity: float) -> None:
    model = network()
    size = sizes(model)
    targets = erk(model, sparsity)
    assert removed(targets, size) == pytest.approx(sparsity * sum(size.values()), rel=1e-9)
    dimensions = {"0": 4 + 1 + 3 + 3, "3": 8 + 4 + 3 + 3, "5": 10 + 128}
    scales = {name: (1 - value) * size[name] / dimensions[name] for name, value in targets.items()}
    scale = next(iter(scales.values()))
    for name in size:
        if name in targets:
            assert 0 < targets[name] < 1
            assert scales[name] == pytest.approx(scale, rel=1e-9)
        else:
            assert scale * dimensions[name] >= size[name] * (1 - 1e-9)


def test_erk_leaves_small_layers_dense() -> None:
    assert set(erk(network(), 0.02)) == {"3"}
    assert set(erk(network(), 0.5)) == {"3", "5"}
    assert set(erk(network(), 0.9)) == {"0", "3", "5"}


def test_erk_shares_among_the_layers_that_are_not_ignored() -> None:
    model = network()
    size = sizes(model)
    del size["5"]
    targets = erk(model, 0.6, ignored_layers=["5"])
    assert removed(targets, size) == pytest.approx(0.6 * sum(size.values()))


@given(st.integers(0, 1000), st.floats(0.05, 0.75))
@settings(max_examples=50, deadline=None)
def test_global_magnitude_is_best_among_all_splits(seed: int, sparsity: float) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False), nn.Linear(1, 6, bias=False)
    )
    with torch.no_grad():
        model[0].weight *= 20
    squares = {
        name: sorted(module.weight.detach().double().square().flatten().tolist(), reverse=True)
        for name, module in model.named_children()
    }
    kept = round(12 * (1 - sparsity))
    assume(3 <= kept < 12)
    best = max(
        (sum(sum(squares[name][:count]) for name, count in zip(squares, counts, strict=True)), counts)
        for counts in itertools.product(range(1, 5), range(1, 3), range(1, 7))
        if sum(counts) == kept
    )[1]
    targets = global_magnitude(model, sparsity)
    for (name, module), count in zip(model.named_children(), best, strict=True):
        if count == module.weight.numel():
            assert name not in targets
        else:
            assert get_structure("irregular")(module.weight, targets[name]).sum() == count


def test_global_magnitude_is_one_threshold() -> None:
    model = network()
    targets = global_magnitude(model, 0.8)
    pruner = OneShotPruner(model, targets)
    masks = pruner.current_masks()
    magnitudes = {name: weight.detach().abs() for name, weight in pruner.weights.items()}
    assert targets.keys() == sizes(model).keys()
    assert min(magnitudes[name][mask].min() for name, mask in masks.items()) >= max(
        magnitudes[name][~mask].max() for name, mask in masks.items()
    )
    total = sum(sizes(model).values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.2 * total)


def test_global_magnitude_empties_no_layer_and_still_meets_the_count() -> None:
    model = network()
    with torch.no_grad():
        model[3].weight *= 1e-6
    masks = OneShotPruner(model, global_magnitude(model, 0.9)).current_masks()
    assert int(masks["3.weight"].sum()) == 1
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.1 * sum(sizes(model).values()))


def test_global_magnitude_ignores_layers() -> None:
    model = network()
    assert global_magnitude(model, 0.5, ignored_layers=["0", "5"]) == {"3": pytest.approx(0.5)}


def test_global_magnitude_refuses_fewer_weights_than_layers() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(SettingError, match=r"keeps 1 of 12 weights in 3 layers.*0\.75 or less"):
        global_magnitude(model, 0.9)
    assert len(global_magnitude(model, 0.75)) == 3


def test_global_magnitude_refuses_nan() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = math.nan
    with pytest.raises(SettingError, match="NaN"):
        global_magnitude(model, 0.5)


@pytest.mark.parametrize("allot", [uniform, erk, global_magnitude])
def test_impossible_targets_and_unknown_layers_are_refused(allot) -> None:  # type: ignore[no-untyped-def]
    for sparsity in (0.0, 1.0, math.nan):
        with pytest.raises(SettingError, match="between 0 and 1"):
            allot(network(), sparsity)
    with pytest.raises(UnknownNameError, match="layer"):
        allot(network(), 0.5, ignored_layers=["fc"])
    with pytest.raises(SettingError, match="at least one layer"):
        allot(network(), 0.5, ignored_layers=["*"])


def norm_kept(model: nn.Module) -> float:
    """Stand in for an accuracy: falls as weights are removed, differently by layer."""
    return sum(
        (1 + index) * float(module.weight.detach().double().square().sum())
        for index, module in enumerate(model.modules())
        if isinstance(module, nn.Linear | nn.Conv2d)
    )


def test_the_scan_prunes_one_layer_at_a_time_and_restores_it() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    scan = sensitivity_scan(model, norm_kept, (0.3, 0.8), structure="filter", layers=["0", "5"])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert scan.structure == "filter"
    assert scan.dense == norm_kept(model)
    assert scan.sizes == {"0": 36, "5": 1280}
    for name, accuracies in scan.accuracies.items():
        for sparsity, value in zip((0.3, 0.8), accuracies, strict=True):
            alone = network()
            OneShotPruner(alone, {name: sparsity}, structure="filter").finalize()
            assert value == norm_kept(alone) < scan.dense


def test_the_scan_restores_the_weights_after_an_error() -> None:
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = itertools.count()

    def fail(model: nn.Module) -> float:
        if next(calls) == 3:
            assert (model[0].weight == 0).any()
            raise KeyError
        return 1.0

    with pytest.raises(KeyError):
        sensitivity_scan(model, fail, (0.2, 0.5, 0.9))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("sparsities", [(), (0.5, 0.5), (0.9, 0.5), (0.0, 0.5), (0.5, 1.0), (0.5, math.nan)])
def test_the_scan_refuses_sparsities_that_do_not_rise(sparsities: tuple[float, ...]) -> None:
    with pytest.raises(SettingError, match="rising"):
        sensitivity_scan(network(), norm_kept, sparsities)


def test_the_scan_refuses_what_does_not_apply() -> None:
    with pytest.raises(SettingError, match="3, 3"):
        sensitivity_scan(network(), norm_kept, (0.5,), structure="pattern")
    with pytest.raises(DivergedError, match=r"layer '0' at sparsity 0\.5"):
        sensitivity_scan(network(), lambda model: math.nan if (model[0].weight == 0).any() else 1.0, (0.5,))


@pytest.mark.parametrize(
    ("structure", "sparsities", "layers"),
    [("2:4", (0.5,), ["3", "5"]), ("1:4", (0.75,), ["3", "5"]), ("pattern", (4 / 9, 0.8), ["0", "3"])],
)
def test_structures_with_a_least_sparsity_are_scanned(
    structure: str, sparsities: tuple[float, ...], layers: list[str]
) -> None:
    scan = sensitivity_scan(network(), norm_kept, sparsities, structure=structure, layers=layers)
    for name, accuracies in scan.accuracies.items():
        for sparsity, value in zip(sparsities, accuracies, strict=True):
            alone = network()
            OneShotPruner(alone, {name: sparsity}, structure=structure).finalize()
            assert value == norm_kept(alone) < scan.dense
    targets = from_sensitivity(scan, sparsities[-1])
    assert targets == pytest.approx(dict.fromkeys(layers, sparsities[-1]))
    OneShotPruner(network(), targets, structure=structure).finalize()
    with pytest.raises(SettingError, match="the least that the structure can make"):
        from_sensitivity(scan, sparsities[0] / 2)


def test_the_scan_refuses_sparsities_that_a_structure_cannot_make() -> None:
    with pytest.raises(SettingError, match=r"expected 1 - 2/4"):
        sensitivity_scan(network(), norm_kept, (0.5, 0.7), structure="2:4", layers=["3"])
    with pytest.raises(SettingError, match="4/9"):
        sensitivity_scan(network(), norm_kept, (0.3, 0.7), structure="pattern", layers=["3"])


def scan_of(drops: dict[str, list[float]], size: dict[str, int]) -> SensitivityScan:
    accuracies = {name: tuple(90 - drop for drop in values) for name, values in drops.items()}
    return SensitivityScan("irregular", (0.3, 0.6, 0.9), 90.0, accuracies, size)


def worst(scan: SensitivityScan, targets: dict[str, float]) -> float:
    """The largest drop, by the definition in `from_sensitivity`."""
    grid = (0.0, *scan.sparsities)
    return max(
        np.interp(
            value,
            grid,
            np.maximum.accumulate([0.0, *(scan.dense - accuracy for accuracy in scan.accuracies[name])]),
        )
        for name, value in targets.items()
    )


@given(
    st.lists(st.lists(st.integers(-2, 8).map(float), min_size=3, max_size=3), min_size=3, max_size=3),
    st.tuples(*[st.integers(1, 50)] * 3),
    st.floats(0.02, 0.9),
)
@settings(max_examples=60, deadline=None)
def test_from_sensitivity_has_the_least_worst_drop(
    drops: list[list[float]], counts: tuple[int, ...], sparsity: float
) -> None:
    size = dict(zip("abc", counts, strict=True))
    scan = scan_of(dict(zip("abc", drops, strict=True)), size)
    targets = from_sensitivity(scan, sparsity)
    assert all(0 < value <= 0.9 + 1e-12 for value in targets.values())
    assert removed(targets, size) == pytest.approx(sparsity * sum(counts), rel=1e-9)
    ours = worst(scan, targets)

    # No mapping on a fine grid that removes as much has a smaller worst drop.
    axis = np.linspace(0, 0.9, 46)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    enough = points @ np.array(counts) >= sparsity * sum(counts) - 1e-9
    grid = (0.0, *scan.sparsities)
    curves = [np.maximum.accumulate([0.0, *values]) for values in drops]
    worst_of = np.max([np.interp(points[:, i], grid, curves[i]) for i in range(3)], axis=0)
    best = worst_of[enough].min()
    steepest = max(np.diff(curve).max() for curve in curves) / 0.3
    assert ours <= best + 1e-9
    assert ours >= best - steepest * (axis[1] - axis[0]) - 1e-9


def test_from_sensitivity_by_hand() -> None:
    scan = scan_of({"a": [1.0, 2.0, 3.0], "b": [2.0, 4.0, 6.0]}, {"a": 100, "b": 100})
    assert from_sensitivity(scan, 0.45) == pytest.approx({"a": 0.6, "b": 0.3})
    assert from_sensitivity(scan, 0.9) == pytest.approx({"a": 0.9, "b": 0.9})
    assert from_sensitivity(scan, 0.2, ignored_layers=["a"]) == pytest.approx({"b": 0.2})


def test_from_sensitivity_reaches_the_highest_sparsity_whatever_the_rounding() -> None:
    for counts in itertools.product(range(1, 15), repeat=3):
        size = dict(zip("abc", counts, strict=True))
        scan = scan_of({name: [1.0, 2.0, 3.0] for name in size}, size)
        assert from_sensitivity(scan, 0.9) == pytest.approx(dict.fromkeys(size, 0.9))


def test_from_sensitivity_shares_what_costs_nothing() -> None:
    scan = scan_of(
        {"a": [0.0, 0.0, 9.0], "b": [0.0, 5.0, 9.0], "c": [5.0, 6.0, 9.0]}, {"a": 10, "b": 10, "c": 10}
    )
    assert from_sensitivity(scan, 0.15) == pytest.approx({"a": 0.3, "b": 0.15})


def test_from_sensitivity_refuses_what_was_not_scanned() -> None:
    scan = scan_of({"a": [1.0, 2.0, 3.0]}, {"a": 100})
    for sparsity in (0.0, 0.95, math.nan):
        with pytest.raises(SettingError, match=r"up to 0\.9"):
            from_sensitivity(scan, sparsity)
    with pytest.raises(UnknownNameError, match="layer"):
        from_sensitivity(scan, 0.5, ignored_layers=["b"])
    with pytest.raises(SettingError, match="at least one layer"):
        from_sensitivity(scan, 0.5, ignored_layers=["*"])


def test_a_scan_goes_through_json_and_into_targets() -> None:
    model = network()
    scan = sensitivity_scan(model, norm_kept, (0.5, 0.9))
    targets = from_sensitivity(SensitivityScan(**json.loads(json.dumps(scan.as_dict()))), 0.7)
    assert targets == from_sensitivity(scan, 0.7)
    OneShotPruner(model, targets).finalize()
    zeros = sum(int((model.get_submodule(name).weight == 0).sum()) for name in scan.sizes)
    assert zeros == pytest.approx(0.7 * sum(scan.sizes.values()), abs=len(scan.sizes))


def test_the_plot_is_written(tmp_path: Path) -> None:
    scan = scan_of({"a": [1.0, 2.0, 3.0], "b": [2.0, 4.0, 6.0]}, {"a": 100, "b": 100})
    path = scan.plot(tmp_path / "scan.png")
    assert path.read_bytes().startswith(b"\x89PNG")

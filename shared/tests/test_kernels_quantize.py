"""Quantisation: every implementation and instruction set against arithmetic in Python and the reference."""

import math
from fractions import Fraction

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfold import SettingError, kernels
from tenfold.kernels._quantize import hash_keys, hash_of

NATIVE = [f"native:{name}" for name in kernels.instruction_sets()]
IMPLEMENTATIONS = ["reference", *NATIVE]
INF, NAN = float("inf"), float("nan")


@pytest.fixture(autouse=True)
def _restore_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def python_hash(seed, index):
    """The generator, written again with Python's integers."""
    word = 2**32
    z = (seed + 0x9E3779B97F4A7C15) % word**2
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % word**2
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % word**2
    z ^= z >> 31
    first, second = z % word, z >> 32
    z = (index % word) ^ first
    z = ((z ^ (z >> 16)) * 0x7FEB352D) % word
    z ^= (second + (index >> 32) * 0x9E3779B9) % word
    z = ((z ^ (z >> 15)) * 0x846CA68B) % word
    return z ^ (z >> 16)


numbers = st.one_of(
    st.sampled_from(
        [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, -2.5, 126.5, 127.0, -127.5, 1e-45, 3e38, INF, -INF, NAN]
    ),
    st.floats(-200, 200, width=32),
    st.floats(width=32),
)


def masks(draw, size):
    kind = draw(st.sampled_from([None, "bits", torch.float32, torch.int8, torch.bool]))
    if kind is None:
        return None
    signs = torch.tensor(draw(st.lists(st.integers(-2, 2), min_size=size, max_size=size)))
    if kind == "bits":
        return kernels.positive_bits(signs.float(), implementation="reference")
    return signs > 0 if kind is torch.bool else signs.to(kind)


@st.composite
def quantize_arguments(draw):
    rows, columns = draw(st.integers(0, 7)), draw(st.integers(0, 40))
    size = rows * columns
    x = torch.tensor(draw(st.lists(numbers, min_size=size, max_size=size)), dtype=torch.float32)
    row_scale = draw(st.one_of(st.none(), st.lists(numbers, min_size=rows, max_size=rows)))
    positive = masks(draw, size)
    return {
        "x": x.view(rows, columns),
        "row_scale": None if row_scale is None else torch.tensor(row_scale, dtype=torch.float32),
        "positive": positive
        if positive is None or positive.dtype is torch.uint8
        else positive.view(rows, columns),
    }


def equal(ours, expected):
    return torch.equal(ours.isnan(), expected.isnan()) and torch.equal(
        ours.nan_to_num(), expected.nan_to_num()
    )


@settings(max_examples=300, deadline=None)
@given(
    arguments=quantize_arguments(),
    scale=st.one_of(st.sampled_from([0.0, 1.0, 0.5, 1e-45, INF, NAN]), st.floats(0, 1e3, width=32)),
    levels=st.sampled_from([1, 7, 127]),
    seed=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    implementation=st.sampled_from(IMPLEMENTATIONS),
)
def test_native_is_the_reference_to_the_bit(arguments, scale, levels, seed, implementation):
    largest = kernels.absmax(**arguments, implementation=implementation)
    assert equal(largest, kernels.absmax(**arguments, implementation="reference"))
    options = {**arguments, "scale": torch.tensor(scale), "levels": levels, "seed": seed}
    ours = kernels.quantize(**options, implementation=implementation)
    assert torch.equal(ours, kernels.quantize(**options, implementation="reference"))


@settings(max_examples=100, deadline=None)
@given(values=st.lists(numbers, max_size=1200), implementation=st.sampled_from(IMPLEMENTATIONS))
def test_bits_are_those_of_numpy(values, implementation):
    x = torch.tensor(values, dtype=torch.float32)
    bits = kernels.positive_bits(x, implementation=implementation)
    assert bits.tolist() == np.packbits(x.numpy() > 0, bitorder="little").tolist()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(300, 7), (1, 2049), (3, 5, 131)])
def test_bits_stand_for_their_mask(implementation, shape):
    generator = torch.Generator().manual_seed(6)
    x, y = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    bits = kernels.positive_bits(y, implementation=implementation)
    scale = kernels.absmax(x, positive=bits, implementation=implementation) / 127
    assert scale == kernels.absmax(x, positive=y > 0) / 127
    q = kernels.quantize(x, scale, positive=bits, seed=1, implementation=implementation)
    assert torch.equal(q, kernels.quantize(x, scale, positive=y > 0, seed=1, implementation="reference"))


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(-150, 150, width=32), min_size=1, max_size=60),
    exponent=st.integers(-3, 3),
    seed=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    levels=st.sampled_from([1, 7, 31, 127]),
    implementation=st.sampled_from(IMPLEMENTATIONS),
)
def test_rounding_is_that_of_exact_arithmetic(values, exponent, seed, levels, implementation):
    # A scale that is a power of two divides without a rounding of its own.
    scale = 2.0**exponent
    ours = kernels.quantize(
        torch.tensor(values), torch.tensor(scale), seed=seed, levels=levels, implementation=implementation
    )
    for index, (value, integer) in enumerate(zip(values, ours.tolist(), strict=True)):
        exact = min(max(Fraction(value) / Fraction(scale), -levels), levels)
        if seed is None:
            assert integer == round(exact)
            continue
        below = math.floor(exact)
        # The fraction is rounded to float32, which has its 24 bits.
        fraction = Fraction(torch.tensor(float(exact - below)).item())
        assert integer == below + (Fraction(python_hash(seed, index) >> 8, 2**24) < fraction)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_the_error_is_half_a_step_to_nearest_and_one_at_random(implementation):
    x = torch.randn(300, 77, generator=torch.Generator().manual_seed(0))
    for levels in (7, 127):
        scale = kernels.absmax(x, implementation=implementation) / levels
        assert torch.equal(scale, x.abs().max() / levels)
        for seed, bound in ((None, 0.5), (1, 1.0)):
            q = kernels.quantize(x, scale, levels=levels, seed=seed, implementation=implementation)
            assert int(q.abs().max()) == levels
            assert float((q * scale - x).abs().max() / scale) <= bound * (1 + 1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_rounding_at_random_is_right_on_average_and_keeps_integers(implementation):
    x = torch.linspace(-3, 3, 61)
    one = torch.tensor(1.0)
    draws = torch.stack(
        [kernels.quantize(x, one, seed=seed, implementation=implementation) for seed in range(4000)]
    ).double()
    # Five standard deviations of a mean of 4000 Bernoulli variables.
    assert float((draws.mean(0) - x).abs().max()) < 5 * 0.5 / math.sqrt(4000)
    integers = torch.arange(-127.0, 128.0)
    for seed in range(50):
        assert torch.equal(
            kernels.quantize(integers, one, seed=seed, implementation=implementation), integers
        )


def test_the_generator_is_the_one_described():
    index = torch.tensor([0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**40 + 12345, 2**62])
    for seed in (0, 1, 2**63, 2**64 - 1):
        assert hash_of(index, hash_keys(seed)).tolist() == [python_hash(seed, i) for i in index.tolist()]


@pytest.mark.parametrize("seeds", [(0, 1), (7, 2**32 + 7), (2**64 - 1, 2**63)])
def test_the_generator_looks_random(seeds):
    index = torch.arange(1 << 16)
    first, second = ((hash_of(index, hash_keys(seed)) >> 8).double() * 2.0**-24 for seed in seeds)
    counts = torch.histc(first, 256, 0, 1)
    # A chi-square of 255 degrees of freedom has mean 255 and standard deviation 22.6.
    assert abs(float(((counts - 256) ** 2 / 256).sum()) - 255) < 5 * 22.6
    far = torch.cat([hash_of(index + (1 << 32), hash_keys(seeds[0])) >> 8]).double() * 2.0**-24
    for other in (second, first.roll(1), first.roll(256), far):
        correlation = torch.corrcoef(torch.stack([first, other]))[0, 1]
        assert abs(float(correlation)) < 5 / 256


@pytest.mark.parametrize("implementation", NATIVE)
@pytest.mark.parametrize("seed", [None, 5])
def test_the_number_of_threads_does_not_change_a_bit(implementation, seed):
    generator = torch.Generator().manual_seed(1)
    x, row_scale = torch.randn(701, 93, generator=generator), torch.rand(701, generator=generator)

    def run(threads):
        torch.set_num_threads(threads)
        largest = kernels.absmax(x, row_scale=row_scale, positive=x.sin(), implementation=implementation)
        q = kernels.quantize(
            x, largest / 127, row_scale=row_scale, positive=x.sin(), seed=seed, implementation=implementation
        )
        whole = kernels.quantize(x, largest / 127, seed=seed, implementation=implementation)
        return largest, q, whole, kernels.positive_bits(x, implementation=implementation)

    alone = run(1)
    for threads in (2, 3, 5):
        for ours, expected in zip(run(threads), alone, strict=True):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("shape", [(), (5,), (0,), (3, 0), (2, 3, 4), (1, 1)])
def test_any_shape_and_layout(implementation, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2)) + 0.25
    scale = kernels.absmax(x, implementation=implementation) / 127
    assert torch.equal(scale, x.abs().max() / 127 if x.numel() else torch.tensor(0.0))
    flat = kernels.quantize(x.flatten(), scale, seed=3, implementation=implementation)
    assert torch.equal(kernels.quantize(x, scale, seed=3, implementation=implementation), flat.view(shape))
    turned = x.mT.contiguous().mT if x.dim() > 1 else x
    assert torch.equal(
        kernels.quantize(turned, scale, seed=3, implementation=implementation), flat.view(shape)
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_zeros_and_numbers_that_are_none(implementation):
    def absmax(values):
        return float(kernels.absmax(torch.tensor(values), implementation=implementation))

    def quantize(values, scale):
        return kernels.quantize(
            torch.tensor(values), torch.tensor(scale), implementation=implementation
        ).tolist()

    assert absmax([0.0, -0.0]) == 0.0
    assert absmax([1.0, -INF]) == INF
    for at in range(40):
        assert math.isnan(absmax([*[INF] * at, NAN, *[1.0] * (39 - at)]))
    assert quantize([1.0, -1.0], 0.0) == [0, 0]
    assert quantize([1e-45, 1.0], 1e-45) == [0, 0]
    assert quantize([1.0, NAN, INF], INF) == [0, 0, 0]
    assert quantize([1.0, NAN, INF, -INF], 1.0) == [1, 0, 127, -127]
    assert quantize([1.0, 2.0], NAN) == [0, 0]


def test_other_types_are_converted_and_gradients_are_cut():
    x = torch.tensor([1.0, -3.0], requires_grad=True)
    scale = kernels.absmax(x) / 3
    assert not scale.requires_grad
    for same in (x, x.double(), x.bfloat16()):
        assert kernels.absmax(same).dtype is torch.float32
        assert kernels.quantize(same, scale).tolist() == [1, -3]


@pytest.mark.slow
@pytest.mark.skipif(not NATIVE, reason="the native kernels are not built")
@pytest.mark.skipif(psutil.virtual_memory().available < 12 << 30, reason="needs 12 GB of memory")
def test_elements_beyond_the_reach_of_32_bits():
    # NumPy's zeros take no memory until they are written to.
    x = torch.from_numpy(np.zeros(2**32 + 96, dtype=np.float32))
    x[-128:] = torch.rand(128, generator=torch.Generator().manual_seed(4))
    ours = kernels.quantize(x, torch.tensor(1.0), seed=9)[-128:].tolist()
    drawn = torch.tensor([python_hash(9, index) >> 8 for index in range(2**32 - 32, 2**32 + 96)])
    assert ours == (drawn * 2.0**-24 < x[-128:]).tolist()


def _arguments(**changes):
    return {"x": torch.ones(3, 4), "scale": torch.tensor(0.5)} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": torch.ones(3, 4, dtype=torch.int32)}, "floating-point type"),
        ({"scale": torch.ones(1)}, r"scale of shape \(1,\)"),
        ({"scale": torch.tensor(1.0, dtype=torch.float64)}, r"torch\.float64"),
        ({"scale": torch.tensor(1.0, device="meta")}, "on cpu"),
        ({"levels": 0}, "levels = 0"),
        ({"levels": 128}, "1 to 127"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**64}, "2 \\*\\* 64 - 1"),
        ({"row_scale": torch.ones(4)}, r"shape \(3,\)"),
        ({"row_scale": torch.ones(3, dtype=torch.float64)}, r"torch\.float64"),
        ({"x": torch.tensor(1.0), "row_scale": torch.ones(1)}, "for a scalar"),
        ({"positive": torch.ones(4, 3)}, r"positive of shape \(4, 3\)"),
        ({"positive": torch.ones(3, 4, dtype=torch.int32)}, "float32, int8, bool or bits"),
        ({"positive": torch.ones(3, dtype=torch.uint8)}, r"positive of shape \(3,\)"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(SettingError, match=message):
        kernels.quantize(**_arguments(**changes))


def test_absmax_checks_too():
    with pytest.raises(SettingError, match="absmax got x of"):
        kernels.absmax(torch.ones(3, dtype=torch.int8))

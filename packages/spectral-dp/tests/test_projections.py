import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectral_dp import DCTLowPass, FFTLowPass, Projection, PublicSubspace
from tenfold import SettingError, UnknownNameError

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)
RATIOS = st.floats(0.01, 1)


def matrix(projection: Projection) -> torch.Tensor:
    return projection(torch.eye(projection.size, dtype=torch.float64))


def subspace(rank: int, size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(size, rank, generator=generator, dtype=torch.float64))[0].T


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, ratio=RATIOS, kind=st.sampled_from([FFTLowPass, DCTLowPass]))
def test_low_passes_are_orthogonal_projections(
    shape: tuple[int, ...], ratio: float, kind: type[FFTLowPass | DCTLowPass]
) -> None:
    projection = kind(ratio, shape)
    P = matrix(projection)
    torch.testing.assert_close(P @ P, P, atol=1e-12, rtol=0)
    torch.testing.assert_close(P.T, P, atol=1e-12, rtol=0)
    assert float(P.trace()) == pytest.approx(projection.rank)


@settings(max_examples=40, deadline=None)
@given(rank=st.integers(1, 8), seed=st.integers(0, 99))
def test_subspaces_are_orthogonal_projections(rank: int, seed: int) -> None:
    basis = subspace(rank, 8, seed)
    projection = PublicSubspace(basis.float(), "fixed")
    P = matrix(projection)
    torch.testing.assert_close(P @ P, P, atol=1e-12, rtol=0)
    torch.testing.assert_close(P.T, P, atol=1e-12, rtol=0)
    assert projection.rank == rank
    torch.testing.assert_close(projection(basis), basis, atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(shape=SHAPES, ratio=RATIOS, seed=st.integers(0, 99))
def test_the_fft_low_pass_is_a_symmetric_mask_on_the_spectrum(
    shape: tuple[int, ...], ratio: float, seed: int
) -> None:
    x = np.random.default_rng(seed).normal(size=(2, *shape))
    axes = tuple(range(1, x.ndim))
    mask = np.ones(shape)
    for axis, length in enumerate(shape):
        kept = np.abs(np.fft.fftfreq(length)) <= ratio / 2 + 1e-9 / length
        mask = mask * kept.reshape([-1 if other == axis else 1 for other in range(len(shape))])
    filtered = np.fft.ifftn(np.fft.fftn(x, axes=axes) * mask, axes=axes)
    np.testing.assert_allclose(filtered.imag, 0, atol=1e-12)
    projection = FFTLowPass(ratio, shape)
    np.testing.assert_allclose(projection(torch.from_numpy(x)).numpy(), filtered.real, atol=1e-12)
    assert projection.rank == mask.sum()


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 20), ratio=RATIOS)
def test_the_dct_low_pass_is_that_of_scipy(length: int, ratio: float) -> None:
    from scipy.fft import dct, idct

    spectrum = dct(np.eye(length), norm="ortho", axis=-1)
    spectrum[:, math.ceil(ratio * length - 1e-9) :] = 0
    filtered = idct(spectrum, norm="ortho", axis=-1)
    np.testing.assert_allclose(matrix(DCTLowPass(ratio, (length,))), filtered, atol=1e-12)


@pytest.mark.parametrize("kind", [FFTLowPass, DCTLowPass])
def test_ratio_one_keeps_everything(kind: type[FFTLowPass | DCTLowPass]) -> None:
    for shape in [(7,), (8,), (3, 4)]:
        identity = torch.eye(math.prod(shape), dtype=torch.float64)
        torch.testing.assert_close(matrix(kind(1.0, shape)), identity, atol=1e-12, rtol=0)


@pytest.mark.parametrize("folding", [(5, 12), (5, 3, 4), (2, 5, 12), (0, 12), (12,)])
def test_every_folding_of_a_fibre_gives_the_same(folding: tuple[int, ...]) -> None:
    x = torch.randn(folding, generator=torch.Generator().manual_seed(0))
    projection = FFTLowPass(0.5, (3, 4))
    expected = (x.reshape(x.numel() // 12, 12) @ matrix(projection).float()).reshape(folding)
    torch.testing.assert_close(projection(x), expected)


def test_coefficients_keep_lengths_within_the_range() -> None:
    projection = DCTLowPass(0.4, (5, 6))
    x = torch.randn(9, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(projection.coefficients(x).flatten(1).norm(dim=1), projection(x).norm(dim=1))


def test_a_projection_binds_to_the_first_fibre_or_to_one_of_its_size() -> None:
    assert FFTLowPass(0.5).bind((3, 3), (2, 3, 3)).axes == (3, 3)
    assert FFTLowPass(0.5, (18,)).bind((3, 3), (2, 3, 3)).size == 18
    with pytest.raises(SettingError, match="9 entries or 18 entries"):
        FFTLowPass(0.5, (4,)).bind((3, 3), (2, 3, 3))
    with pytest.raises(SettingError, match="without a shape"):
        FFTLowPass(0.5)(torch.ones(3))


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.01, float("nan")])
@pytest.mark.parametrize("kind", [FFTLowPass, DCTLowPass])
def test_ratios_outside_zero_to_one_are_refused(kind: type[FFTLowPass | DCTLowPass], ratio: float) -> None:
    with pytest.raises(SettingError, match="ratio is"):
        kind(ratio)


def test_bad_shapes_and_tensors_are_refused() -> None:
    with pytest.raises(SettingError, match="shape is"):
        FFTLowPass(0.5, (3, 0))
    with pytest.raises(SettingError, match="complex"):
        FFTLowPass(0.5, (4,))(torch.ones(4, dtype=torch.complex64))
    with pytest.raises(SettingError, match="trailing axes of 4"):
        FFTLowPass(0.5, (4,))(torch.ones(3, 2))


def test_a_subspace_without_provenance_is_refused() -> None:
    with pytest.raises(TypeError, match="provenance"):
        PublicSubspace(subspace(2, 4))  # type: ignore[call-arg]
    with pytest.raises(UnknownNameError, match="public"):
        PublicSubspace(subspace(2, 4), "publik")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "basis",
    [
        1.01 * subspace(2, 4),
        torch.full((1, 4), math.nan),
        subspace(2, 4).T,
        torch.eye(2, dtype=torch.complex64),
        torch.ones(4),
    ],
)
def test_a_basis_that_is_not_orthonormal_rows_is_refused(basis: torch.Tensor) -> None:
    with pytest.raises(SettingError):
        PublicSubspace(basis, "public")

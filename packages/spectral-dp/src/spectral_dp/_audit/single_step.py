"""Whether one noised step is as private as it claims, from many draws of it.

A step that adds noise of covariance S to a sum of contributions of norm <= C has, in its worst
direction, the trade-off of a Gaussian mechanism with

    mu = C / sqrt(smallest eigenvalue of S);        the claim is 1 / noise multiplier.

**The worst direction.** The smallest eigenvalue of a sample covariance is too small: of n draws of
isotropic noise in k dimensions it is near (1 - sqrt(k/n))^2 of the truth (the Marchenko-Pastur
edge), which dividing by would correct; but of noise that is short in one direction it is hardly too
small at all, and the division would hide part of what is looked for. So the direction is found on
one half of the draws and its variance measured on the other, and the two halves then change places.
Of a fixed direction the sample variance is unbiased, whatever the spectrum. What is left is that a
shortfall of the order of sqrt(2k/n) of the variance or less is found only in part, and mu then too low:
by 2.4 % at worst for k = 64 and n = 50,000. Besides, the smallest eigenvalue of all draws is held against
its law for isotropic noise, simulated by Bartlett's decomposition with the same k and n.

**Canaries.** A canary is one gradient, huge along a known direction, added to a batch. Its shift D of
the mean release must not be longer than C, and mu^2 = D' S^-1 D is what it tells an adversary. Both
squares are freed of their bias for n draws (Hotelling's T^2 for the second).

A canary is tried on one batch; that no input contributes more than C is for `check_clipping`.
Noise that is Gaussian is assumed, not tested: a covariance says nothing about tails or about a
predictable generator.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spectral_dp._audit._gaussian import check_delta, gaussian_epsilon
from tenfold import DataError, SettingError

Mechanism = Callable[[Tensor, int], Tensor]
Step = Callable[[Tensor], Tensor]

AMPLITUDE = 1e3
SIMULATIONS = 50
SILENT = 1e-11
OUTSIDE = 1e-5
CHUNK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class CanaryAudit:
    """What one canary told.

    Attributes
    ----------
    name : str
    norm : float
        How far it moved the mean of the sum, in units of the bound C; 1 is all that is allowed.
    mu, epsilon : float
        Of the best linear test for its presence; infinite where no noise hides it.
    mu_error : float
        Standard error of `mu`.
    """

    name: str
    norm: float
    mu: float
    mu_error: float
    epsilon: float


@dataclass(frozen=True)
class SingleStepAudit:
    """What a single-step audit found.

    Attributes
    ----------
    draws, dimension : int
        n and k.
    delta : float
        At which every epsilon here is.
    claimed_mu, claimed_epsilon : float
        Of the noise multiplier.
    mu, epsilon : float
        Of the worst direction of the noise; infinite where some direction has none.
    mu_error : float
        Standard error of `mu`.
    noise : tuple of float
        Square roots of the eigenvalues of the sample covariance, ascending (k,), in units of the
        claimed standard deviation; not corrected.
    isotropic_edge : float
        The smallest that the first of `noise` gets, by five standard deviations of its simulation,
        when the noise is isotropic and as claimed.
    outside : float
        Root mean square of the release outside the subspace, relative to the whole release.
    canaries : tuple of CanaryAudit
    """

    draws: int
    dimension: int
    delta: float
    claimed_mu: float
    claimed_epsilon: float
    mu: float
    mu_error: float
    epsilon: float
    noise: tuple[float, ...]
    isotropic_edge: float
    outside: float
    canaries: tuple[CanaryAudit, ...]

    def findings(self, tolerance: float = 0.02) -> list[str]:
        """Return what contradicts the claim, a sentence each; empty when nothing does.

        Parameters
        ----------
        tolerance : float
            How much a figure may exceed the claim, relative, beyond three of its standard errors.
        """
        limit = self.claimed_mu * (1 + tolerance)
        found = []
        if self.mu > limit + 3 * self.mu_error:
            found.append(f"the worst direction has mu {self.mu:.3f}, claimed is {self.claimed_mu:.3f}")
        if self.noise[0] * (1 + tolerance) < self.isotropic_edge:
            found.append(
                f"the least noise is {self.noise[0]:.3f} of the claimed,"
                f" isotropic noise would show at least {self.isotropic_edge:.3f}"
            )
        if self.outside > OUTSIDE:
            found.append(f"{self.outside:.1e} of the release lies outside the subspace")
        for canary in self.canaries:
            if canary.mu > limit + 3 * canary.mu_error:
                found.append(f"canary {canary.name} has mu {canary.mu:.3f}, claimed is {self.claimed_mu:.3f}")
            if canary.norm > 1 + tolerance + 3 * np.sqrt(2 / self.draws) / self.claimed_mu:
                found.append(f"canary {canary.name} moved the sum by {canary.norm:.3f} times the bound")
        return found


def single_step_audit(
    mechanism: Mechanism,
    *,
    dimension: int,
    max_grad_norm: float,
    noise_multiplier: float,
    canaries: Mapping[str, Tensor] | None = None,
    subspace: Tensor | None = None,
    scale: float = 1.0,
    draws: int = 50_000,
    batch: int = 8,
    delta: float = 1e-5,
    generator: torch.Generator | None = None,
) -> SingleStepAudit:
    """Measure the noise of a mechanism, and what single gradients do to its release.

    Parameters
    ----------
    mechanism : callable
        Given per-sample gradients, float32 (batch, d), and a number of draws, returns (draws, d):
        in each row a whole release of that batch (clipped, summed and noised), noised afresh. `repeat`
        makes one of a step that gives a single release. The noise must not repeat between calls.
    dimension : int
        d.
    max_grad_norm : float
        C, the bound on a sample's contribution.
    noise_multiplier : float
        Claimed standard deviation of the noise over C.
    canaries : mapping of str to Tensor, optional
        Directions (d,) by name, of any length but zero. Default: `frequency_canaries` of d.
    subspace : Tensor, optional
        Orthonormal columns (d, k) of the subspace that the release lies in. Default: all of R^d.
    scale : float
        What the release is a multiple of the sum by, such as 1 / expected batch size.
    draws : int
        n, at least 20 k, for the noise and for every canary.
    batch : int
        Samples, random and of norm C, that are there with and without the canary.
    delta : float
        At which to state epsilon.
    generator : torch.Generator, optional
        For that batch. Default: one of seed 0.

    Returns
    -------
    SingleStepAudit

    Raises
    ------
    SettingError
        A number is out of its range, the columns are not orthonormal or a canary is zero.
    DataError
        The mechanism returned another shape, a complex type or numbers that are not finite.
    """
    _check_numbers(dimension, max_grad_norm, noise_multiplier, scale, batch)
    check_delta(delta)
    basis = _basis(subspace, dimension)
    size = dimension if basis is None else basis.shape[1]
    if draws < 20 * size:
        raise SettingError(
            f"{draws} draws in {size} dimensions",
            f"{20 * size} or more",
            "Draw more often, or audit a smaller layer.",
        )
    directions = frequency_canaries(dimension) if canaries is None else canaries
    units = {name: _unit(name, canary, dimension) for name, canary in directions.items()}

    background = torch.randn(batch, dimension, generator=generator or torch.Generator().manual_seed(0))
    background *= max_grad_norm / background.norm(dim=1, keepdim=True)
    claimed = noise_multiplier * max_grad_norm * scale
    bound = max_grad_norm * scale

    halves = [_moments(mechanism, background, half, basis) for half in (draws // 2, draws - draws // 2)]
    mean = np.average([half.mean for half in halves], axis=0, weights=[half.count for half in halves])
    covariance = np.mean([half.covariance for half in halves], axis=0)
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    silent = eigenvalues <= SILENT * max(eigenvalues[-1], np.finfo(float).tiny)

    first, second = (half.covariance for half in halves)
    variance = (_crossed(first, second) + _crossed(second, first)) / 2
    mu = np.inf if silent[0] else bound / np.sqrt(variance)

    outside = max(half.outside for half in halves)
    audits = []
    for name, unit in units.items():
        moved = _moments(
            mechanism, torch.cat([background, AMPLITUDE * max_grad_norm * unit[None]]), draws, basis
        )
        outside = max(outside, moved.outside)
        shift = eigenvectors.T @ (moved.mean - mean)
        audits.append(_canary(name, shift, eigenvalues, silent, draws, bound, delta))

    claimed_mu = 1 / noise_multiplier
    return SingleStepAudit(
        draws=draws,
        dimension=size,
        delta=delta,
        claimed_mu=claimed_mu,
        claimed_epsilon=gaussian_epsilon(claimed_mu, delta),
        mu=float(mu),
        mu_error=float(mu / np.sqrt(2 * draws)) if np.isfinite(mu) else 0.0,
        epsilon=gaussian_epsilon(float(mu), delta),
        noise=tuple(float(value) for value in np.sqrt(eigenvalues.clip(min=0)) / claimed),
        isotropic_edge=_isotropic_edge(size, draws),
        outside=outside,
        canaries=tuple(audits),
    )


def repeat(step: Step) -> Mechanism:
    """Make a mechanism of a step that gives one release, by calling it once a draw.

    Parameters
    ----------
    step : callable
        Given per-sample gradients (batch, d), returns one release (d,), with fresh noise each call.
    """

    def mechanism(gradients: Tensor, draws: int) -> Tensor:
        return torch.stack([step(gradients) for _ in range(draws)])

    return mechanism


def frequency_canaries(length: int, bins: tuple[int, ...] | None = None) -> dict[str, Tensor]:
    """Return a unit direction of every class of bins of a real Fourier transform.

    Parameters
    ----------
    length : int
        d, at least 3.
    bins : tuple of int, optional
        Frequencies for a cosine and a sine each, between 1 and (d - 1) // 2. Default: the lowest, the
        middle and the highest of these.

    Returns
    -------
    dict of str to Tensor
        float32 (d,) by name: ``"DC"``, for an even length ``"Nyquist"``, and ``"cosine 1"``, ``"sine 1"``
        and so on.

    Raises
    ------
    SettingError
        A bin is out of range.
    """
    highest = (length - 1) // 2
    if highest < 1:
        raise SettingError(f"length {length}", "3 or more", "Name the canaries yourself.")
    chosen = sorted({1, (highest + 1) // 2, highest}) if bins is None else bins
    time = torch.arange(length, dtype=torch.float64)
    waves = {"DC": torch.ones(length, dtype=torch.float64)}
    if length % 2 == 0:
        waves["Nyquist"] = 1 - 2 * (time % 2)
    for frequency in chosen:
        if not 1 <= frequency <= highest:
            raise SettingError(f"bin {frequency}", f"1 to {highest}", "DC and Nyquist are always there.")
        phase = 2 * torch.pi * frequency * time / length
        waves[f"cosine {frequency}"] = phase.cos()
        waves[f"sine {frequency}"] = phase.sin()
    return {name: (wave / wave.norm()).float() for name, wave in waves.items()}


@dataclass(frozen=True)
class ClippingCheck:
    """What single samples contributed to a clipped sum.

    Attributes
    ----------
    worst : float
        The longest contribution, in units of the bound C; infinite when one is not finite.
    sample, others : str
        The sample that contributed it, and what else was in the batch.
    tried : int
        Pairs of a sample and a batch.
    refused : tuple of str
        Samples, none of them finite, for which the function raised an error.
    """

    worst: float
    sample: str
    others: str
    tried: int
    refused: tuple[str, ...]

    def findings(self, tolerance: float = 1e-4) -> list[str]:
        """Return what contradicts the bound, a sentence each; empty when nothing does."""
        if self.worst <= 1 + tolerance:
            return []
        return [f"sample {self.sample!r} among {self.others} contributed {self.worst:.4g} times the bound"]


def check_clipping(
    clipped_sum: Step,
    *,
    dimension: int,
    max_grad_norm: float,
    scale: float = 1.0,
    samples: int = 16,
    generator: torch.Generator | None = None,
) -> ClippingCheck:
    """Look for a sample that contributes more than the bound to a clipped sum.

    Parameters
    ----------
    clipped_sum : callable
        The step without its noise: per-sample gradients, float32 (batch, d), to their clipped sum (d,).
    dimension : int
        d.
    max_grad_norm : float
        C.
    scale : float
        What the function returns a multiple of the sum by.
    samples : int
        Random directions to try besides the waves of `frequency_canaries` and the first axis, each at
        lengths from 1e-20 to 1e18 times C. A sample of infinities and one of NaN are tried too.
    generator : torch.Generator, optional
        For the directions. Default: one of seed 0.

    Returns
    -------
    ClippingCheck
        Of the difference that each sample makes to the sum of a batch: of a zero sample, of random
        samples, and of one huge sample that points the other way.

    Raises
    ------
    SettingError
        A number is out of its range.
    DataError
        The function returned another shape, or raised an error for finite gradients.
    """
    _check_numbers(dimension, max_grad_norm, 1.0, scale, samples)
    generator = generator or torch.Generator().manual_seed(0)
    directions = {f"random {index}": torch.randn(dimension, generator=generator) for index in range(samples)}
    directions |= {"axis 0": torch.eye(1, dimension)[0]}
    directions |= frequency_canaries(dimension) if dimension > 2 else {}
    others = torch.randn(4, dimension, generator=generator)
    others *= 2 * max_grad_norm / others.norm(dim=1, keepdim=True)

    worst, sample, among, tried, refused = 0.0, "none", "none", 0, []

    def attempt(name: str, gradient: Tensor, label: str, batch: Tensor) -> None:
        nonlocal worst, sample, among, tried
        with_it = _sum(clipped_sum, torch.cat([batch, gradient[None]]))
        difference = with_it - _sum(clipped_sum, batch)
        norm = float(difference.norm()) / (max_grad_norm * scale)
        tried += 1
        if not norm <= worst:
            worst, sample, among = (norm if np.isfinite(norm) else np.inf), name, label

    for name, direction in directions.items():
        unit = direction / direction.norm()
        batches = {
            "a zero sample": torch.zeros(1, dimension),
            "random samples": others,
            "a huge sample against it": -AMPLITUDE * max_grad_norm * unit[None],
        }
        for length in (1e-20, 0.5, 1.0, 1.001, 1e3, 1e18):
            for label, batch in batches.items():
                attempt(f"{name}, {length:g} C", length * max_grad_norm * unit, label, batch)
    for value in (torch.inf, torch.nan):
        name = f"all {value}"
        try:
            attempt(name, torch.full((dimension,), value), "random samples", others)
        except Exception:  # whatever it raises, it released nothing
            refused.append(name)
    return ClippingCheck(worst, sample, among, tried, tuple(refused))


@dataclass(frozen=True)
class _Moments:
    count: int
    mean: np.ndarray
    covariance: np.ndarray
    outside: float


def _moments(mechanism: Mechanism, gradients: Tensor, draws: int, basis: Tensor | None) -> _Moments:
    """Return mean (k,), covariance (k, k) and what lies outside the subspace, over fresh draws."""
    dimension = gradients.shape[1]
    chunk = max(1, min(draws, CHUNK_NUMBERS // dimension))
    origin: Tensor | None = None
    total = square = left_over = whole = torch.zeros((), dtype=torch.float64)
    for start in range(0, draws, chunk):
        count = min(chunk, draws - start)
        with torch.no_grad():
            release = _checked(mechanism(gradients.clone(), count), (count, dimension))
        inside = release if basis is None else release @ basis
        if origin is None:
            # Sums about a typical point keep their digits when the mean is long and the noise short.
            origin = inside.mean(dim=0)
        centred = inside - origin
        total = total + centred.sum(dim=0)
        square = square + centred.T @ centred
        if basis is not None:
            left_over = left_over + (release - inside @ basis.T).square().sum()
            whole = whole + release.square().sum()
    assert origin is not None
    mean = total / draws
    covariance = (square - draws * torch.outer(mean, mean)) / (draws - 1)
    outside = float((left_over / whole).sqrt()) if whole > 0 else 0.0
    return _Moments(draws, (origin + mean).numpy(), covariance.numpy(), outside)


def _crossed(finds: np.ndarray, measures: np.ndarray) -> float:
    """Return the variance by one covariance along the least direction of another."""
    direction = np.linalg.eigh(finds)[1][:, 0]
    return float(direction @ measures @ direction)


def _canary(
    name: str,
    shift: np.ndarray,
    eigenvalues: np.ndarray,
    silent: np.ndarray,
    draws: int,
    bound: float,
    delta: float,
) -> CanaryAudit:
    heard = ~silent
    square = float(shift @ shift)
    norm = np.sqrt(max(0.0, square - 2 * float(eigenvalues.clip(min=0).sum()) / draws)) / bound
    if float(shift[silent] @ shift[silent]) > 1e-8 * square > 0:
        return CanaryAudit(name, float(norm), np.inf, 0.0, np.inf)
    freedom, size = draws - 2, int(heard.sum())
    distance = float((shift[heard] ** 2 / eigenvalues[heard]).sum())
    unbiased = (freedom - size - 1) / freedom * distance - 2 * size / draws
    mu = float(np.sqrt(max(0.0, unbiased)))
    error = float(np.sqrt(2 / draws + mu**2 / (2 * freedom)))
    return CanaryAudit(name, float(norm), mu, error, gaussian_epsilon(mu, delta))


def _isotropic_edge(size: int, draws: int) -> float:
    """Simulate the smallest standard deviation of isotropic unit noise; its mean less five of its own."""
    generator = np.random.default_rng(0)
    smallest = np.empty(SIMULATIONS)
    for index in range(SIMULATIONS):
        factor = np.tril(generator.standard_normal((size, size)), -1)
        factor[np.diag_indices(size)] = np.sqrt(generator.chisquare(draws - 2 - np.arange(size)))
        smallest[index] = np.linalg.eigvalsh(factor @ factor.T)[0] / (draws - 2)
    roots = np.sqrt(smallest)
    return float(roots.mean() - 5 * roots.std(ddof=1))


def _basis(subspace: Tensor | None, dimension: int) -> Tensor | None:
    if subspace is None:
        return None
    basis = subspace.detach().cpu().double()
    if basis.ndim != 2 or basis.shape[0] != dimension or not 1 <= basis.shape[1] <= dimension:
        raise SettingError(
            f"a subspace of shape {tuple(subspace.shape)}",
            f"({dimension}, k), a column for each of its dimensions",
            "Transpose it, or give the dimension of the gradients.",
        )
    error = float((basis.T @ basis - torch.eye(basis.shape[1], dtype=torch.float64)).abs().max())
    if not error < 1e-5:
        raise SettingError(
            f"columns whose Gram matrix is off the identity by {error:.2g}",
            "orthonormal columns",
            "Take the Q of torch.linalg.qr.",
        )
    orthonormal: Tensor = torch.linalg.qr(basis).Q
    return orthonormal


def _unit(name: str, canary: Tensor, dimension: int) -> Tensor:
    direction = canary.detach().cpu().double()
    length = float(direction.norm())
    if direction.shape != (dimension,) or not 0 < length < np.inf:
        raise SettingError(
            f"canary {name!r} of shape {tuple(canary.shape)} and length {length:g}",
            f"a direction of shape ({dimension},)",
            "Flatten it, and let it be neither zero nor infinite.",
        )
    return (direction / length).float()


def _sum(clipped_sum: Step, gradients: Tensor) -> Tensor:
    finite = bool(gradients.isfinite().all())
    try:
        with torch.no_grad():
            found = clipped_sum(gradients.clone())
    except Exception as error:  # it is the user's own code
        if not finite:
            raise
        raise DataError(
            f"the clipped sum failed ({type(error).__name__}: {error})",
            f"a sum (d,) for gradients {tuple(gradients.shape)}",
            "Call it with torch.randn of that shape to see why.",
        ) from error
    return _shaped(found, (gradients.shape[1],))


def _checked(release: Tensor, shape: tuple[int, ...]) -> Tensor:
    found = _shaped(release, shape)
    if not bool(found.isfinite().all()):
        raise DataError(
            "a release with NaN or infinity",
            "finite numbers",
            "Clip, and refuse such gradients.",
        )
    return found


def _shaped(release: Tensor, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(release, Tensor) or tuple(release.shape) != shape or release.is_complex():
        came = (
            f"{release.dtype} of shape {tuple(release.shape)}"
            if isinstance(release, Tensor)
            else f"a {type(release).__name__}"
        )
        raise DataError(
            f"the audited function returned {came}",
            f"a real tensor of shape {shape}",
            "Flatten the parameters into one vector.",
        )
    return release.detach().cpu().double()


def _check_numbers(
    dimension: int, max_grad_norm: float, noise_multiplier: float, scale: float, count: int
) -> None:
    numbers = {"max_grad_norm": max_grad_norm, "noise_multiplier": noise_multiplier, "scale": scale}
    for name, value in numbers.items():
        if not 0 < value < np.inf:
            raise SettingError(f"{name} is {value}", "a positive number", f"Give the {name} that is claimed.")
    if dimension < 1 or count < 1:
        raise SettingError(
            f"dimension {dimension} with {count} samples", "one or more of each", "Raise the smaller one."
        )

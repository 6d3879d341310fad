"""The Fréchet distance between two sets of features, each described as a Gaussian (FID: Heusel et al. 2017; FVD:
Unterthiner et al. 2018): |μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½).

Everything is float64. A covariance is kept as a factor F with FᵀF = Σᵢ (xᵢ − μ)(xᵢ − μ)ᵀ. It costs little where clips
are fewer than features, and no rounding noise is rooted (√1e-16 is 1e-8, for each of hundreds of empty dimensions).

The distance is biased upwards, the more the fewer the samples: compare figures of equal numbers of samples only.
"""

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Literal, Self

import numpy as np
import torch
from scipy.linalg import sqrtm

from magi_video.errors import MagiError

Root = Literal["eigh", "sqrtm"]
Features = np.ndarray | torch.Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and scatter of a set of features. Sets are merged in any order; `ddof` is chosen at the end.

    Attributes:
        n: number of samples.
        mean_D: their mean, float64.
        factor_RD: F, with FᵀF the scatter matrix; at most D rows after compression, otherwise the centred samples.
    """

    n: int
    mean_D: np.ndarray
    factor_RD: np.ndarray

    @classmethod
    def from_features(cls, features_ND: Features) -> Self:
        """Moments of samples [N, D], N ≥ 0, numpy or torch; `MagiError` for another shape or values not finite."""
        values_ND = _checked(features_ND)
        n, dimension = values_ND.shape
        mean_D = values_ND.mean(axis=0) if n else np.zeros(dimension)
        return cls(n, mean_D, _compress(values_ND - mean_D))

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets together."""
        _check_dimensions(self, other)
        if not self.n or not other.n:
            return other if not self.n else self
        n = self.n + other.n
        step_D = other.mean_D - self.mean_D
        # The scatter between the two means is one more row (Chan et al. 1979, in square-root form).
        between_1D = np.sqrt(self.n * other.n / n) * step_D[None]
        return Moments(
            n,
            self.mean_D + step_D * (other.n / n),
            _compress(np.concatenate([self.factor_RD, other.factor_RD, between_1D])),
        )

    def covariance(self, ddof: int) -> np.ndarray:
        """Covariance [D, D]: the scatter over n − `ddof` (0: StyleGAN-V, Latte; 1: VideoGPT, MAGVIT)."""
        return self.factor_RD.T @ self.factor_RD / self.degrees(ddof)

    def degrees(self, ddof: int) -> int:
        """The n − `ddof` that a covariance divides by; `MagiError` if n < 2 or `ddof` is neither 0 nor 1."""
        if ddof not in (0, 1):
            raise MagiError(f"ddof is 0 or 1, got {ddof}")
        if self.n < 2:
            raise MagiError(f"a Fréchet distance needs at least 2 samples on each side, got {self.n}")
        return self.n - ddof

    @cached_property
    def rank(self) -> int:
        """Numerical rank of the covariance, at most min(n − 1, D)."""
        return min(int(np.linalg.matrix_rank(self.factor_RD)), max(self.n - 1, 0), len(self.mean_D))


@dataclass(frozen=True)
class Frechet:
    """A Fréchet distance and what it is made of; `value` = `mean_term` + `covariance_term`, never below 0."""

    value: float
    mean_term: float
    covariance_term: float
    rank_real: int
    rank_fake: int
    dimension: int

    @property
    def deficient(self) -> bool:
        """Whether a covariance lacks full rank, as it must with fewer samples than features."""
        return min(self.rank_real, self.rank_fake) < self.dimension

    @property
    def note(self) -> str | None:
        """One line for the reader of a rank-deficient distance, else None."""
        if not self.deficient:
            return None
        ranks = f"ranks {self.rank_real} (real) and {self.rank_fake} (fake) of {self.dimension}"
        return f"covariances are rank-deficient ({ranks}): compare with figures of equal numbers of samples only"


def frechet_distance(real: Moments, fake: Moments, *, ddof: int = 0, root: Root = "eigh") -> Frechet:
    """The Fréchet distance between two sets.

    Args:
        real: moments of the real set.
        fake: moments of the generated set, in as many features.
        ddof: 0 or 1, what the covariances' denominators leave out.
        root: how tr (Σ₁Σ₂)^½ is found. "eigh": the symmetric form tr (Σ₁^½ Σ₂ Σ₁^½)^½ of VideoGPT and TF-GAN, here by
            the singular values of F₁F₂ᵀ (the same number without a root of rounding noise; none is negative, so none is
            clamped). "sqrtm": scipy's root of the product, real part, as StyleGAN-V does; with rank-deficient
            covariances its rounding noise is about 1e-6 of the value.

    Raises:
        MagiError: fewer than 2 samples, different numbers of features, or a root that is not finite.
    """
    _check_dimensions(real, fake)
    mean_term, covariance_term = _terms(real, fake, ddof, root)
    return Frechet(
        value=max(0.0, mean_term + covariance_term),
        mean_term=mean_term,
        covariance_term=covariance_term,
        rank_real=real.rank,
        rank_fake=fake.rank,
        dimension=len(real.mean_D),
    )


def bootstrap_interval(
    real_ND: Features,
    fake_ND: Features,
    *,
    ddof: int = 0,
    root: Root = "eigh",
    resamples: int = 100,
    seed: int = 0,
    level: float = 0.95,
    parts: int = 1,
) -> tuple[float, float]:
    """Interval of the Fréchet distance of features [N, D] and [M, D]: the estimate ± z × the bootstrap's deviation.

    Resampling with replacement repeats samples, which biases a Fréchet distance upwards: the bootstrap's own quantiles
    can lie wholly above the estimate. Only its spread is used, around the estimate (a standard normal interval, Efron &
    Tibshirani 1993, chapter 13). It speaks of chance in the choice of samples, not of the estimate's own upward bias,
    which can be far larger: the interval is for comparing figures of equal numbers of samples. With few samples for the
    number of features it is too wide, about twice the true spread in simulations with Gaussians (32 to 256 samples of
    100 features).

    Args:
        real_ND: features of the real set, one row a clip.
        fake_ND: features of the generated set.
        ddof: as for `frechet_distance`.
        root: as for `frechet_distance`; it finds the estimate, the spread always comes from "eigh", its equal.
        resamples: how many times both sets are resampled; the deviation's own error is about 1/√(2 resamples).
        seed: of the resampling.
        level: probability that the interval is meant to hold, in (0, 1).
        parts: of the generated features: so many equal parts after one another, in which row i is of video i. Videos
            are drawn then, each with all of its rows, since the rows of one are not independent.

    Returns:
        Lower (not below 0) and upper end.
    """
    if resamples < 2 or not 0 < level < 1:
        raise MagiError(f"resamples is at least 2 and level within (0, 1), got {resamples} and {level}")
    real, fake = Moments.from_features(real_ND), Moments.from_features(fake_ND)
    estimate = frechet_distance(real, fake, ddof=ddof, root=root).value
    real_ND, fake_ND = _checked(real_ND), _checked(fake_ND)
    if parts < 1 or len(fake_ND) % parts:
        raise MagiError(f"{len(fake_ND)} rows are not {parts} equal parts")
    generator = np.random.default_rng(seed)
    values = [
        sum(_terms(_resample(real_ND, generator), _resample(fake_ND, generator, parts), ddof, "eigh"))
        for _ in range(resamples)
    ]
    margin = NormalDist().inv_cdf(0.5 + level / 2) * float(np.std(values, ddof=1))
    return max(0.0, estimate - margin), estimate + margin


def _checked(features_ND: Features) -> np.ndarray:
    """Features as a float64 array [N, D], all finite."""
    if isinstance(features_ND, torch.Tensor):
        features_ND = features_ND.detach().cpu().double().numpy()
    values_ND = np.asarray(features_ND, dtype=np.float64)
    if values_ND.ndim != 2 or values_ND.shape[1] == 0:
        raise MagiError(f"features must have the shape [samples, features], got {list(values_ND.shape)}")
    broken = np.flatnonzero(~np.isfinite(values_ND).all(axis=1))
    if len(broken):
        raise MagiError(f"features of {len(broken)} of {len(values_ND)} samples are not finite (first: {broken[0]})")
    return values_ND


def _check_dimensions(a: Moments, b: Moments) -> None:
    if len(a.mean_D) != len(b.mean_D):
        raise MagiError(f"both sets need the same features, got {len(a.mean_D)} and {len(b.mean_D)} of them")


def _compress(factor_RD: np.ndarray) -> np.ndarray:
    """A factor of the same scatter with at most D rows."""
    rows, dimension = factor_RD.shape
    return np.asarray(np.linalg.qr(factor_RD, mode="r")) if rows > dimension else factor_RD


def _terms(real: Moments, fake: Moments, ddof: int, root: Root) -> tuple[float, float]:
    """|μ₁ − μ₂|² and tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)."""
    degrees_real, degrees_fake = real.degrees(ddof), fake.degrees(ddof)
    mean_term = float(np.square(real.mean_D - fake.mean_D).sum())
    traces = np.square(real.factor_RD).sum() / degrees_real + np.square(fake.factor_RD).sum() / degrees_fake
    if root == "eigh":
        # F is a rotation of Σ^½ (up to scale), so F₁F₂ᵀ has the singular values of Σ₁^½Σ₂^½; their squares are the
        # eigenvalues of Σ₁^½Σ₂Σ₁^½.
        singular = np.linalg.svd(real.factor_RD @ fake.factor_RD.T, compute_uv=False)
        cross = singular.sum() / np.sqrt(degrees_real * degrees_fake)
    elif root == "sqrtm":
        cross = np.trace(sqrtm(fake.covariance(ddof) @ real.covariance(ddof))).real
        if not np.isfinite(cross):
            raise MagiError('scipy found no finite root of the covariances\' product; use root "eigh" or more samples')
    else:
        raise MagiError(f'root is "eigh" or "sqrtm", got {root!r}')
    return mean_term, float(traces - 2 * cross)


def _resample(values_ND: np.ndarray, generator: np.random.Generator, parts: int = 1) -> Moments:
    """Moments of as many samples drawn with replacement; one drawn k times is one row times √k, which saves a third."""
    n, videos = len(values_ND), len(values_ND) // parts
    count_N = np.tile(np.bincount(generator.integers(videos, size=videos), minlength=videos), parts)
    count_K1, drawn_KD = count_N[count_N > 0, None], values_ND[count_N > 0]
    mean_D = (count_K1 * drawn_KD).sum(axis=0) / n
    return Moments(n, mean_D, _compress(np.sqrt(count_K1) * (drawn_KD - mean_D)))

"""The Fréchet distance against a reference written out plainly, and its interval."""

from functools import reduce

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from magi_video.errors import MagiError
from magi_video.evaluation import frechet
from magi_video.evaluation.frechet import Moments, Root, bootstrap_interval, frechet_distance


def reference(real_ND: np.ndarray, fake_ND: np.ndarray, ddof: int) -> float:
    real_DD, fake_DD = (np.cov(side.T, ddof=ddof) for side in (real_ND, fake_ND))
    step_D = real_ND.mean(0) - fake_ND.mean(0)
    return float(step_D @ step_D + np.trace(real_DD + fake_DD - 2 * sqrtm(real_DD @ fake_DD).real))


def gaussians(n: int, dimension: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of correlated samples with different means and covariances."""
    generator = np.random.default_rng(seed)
    mixing_DD = generator.normal(size=(dimension, dimension)) / np.sqrt(dimension)
    real_ND = generator.normal(size=(n, dimension)) @ mixing_DD + 3
    fake_ND = 1.4 * generator.normal(size=(n + 7, dimension)) @ mixing_DD.T + 3.2
    return real_ND, fake_ND


def moments(*sides: np.ndarray) -> list[Moments]:
    return [Moments.from_features(side) for side in sides]


@pytest.mark.parametrize("root, tolerance", [("eigh", 1e-9), ("sqrtm", 1e-3)])
@pytest.mark.parametrize("n, dimension", [(200, 24), (16, 40)])
def test_a_set_is_at_no_distance_from_itself(n: int, dimension: int, root: Root, tolerance: float) -> None:
    real, _ = moments(*gaussians(n, dimension))
    assert frechet_distance(real, real, root=root).value < tolerance


@pytest.mark.parametrize("root", ["eigh", "sqrtm"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_full_rank_agrees_with_the_reference(ddof: int, root: Root) -> None:
    sides = gaussians(300, 32)
    distance = frechet_distance(*moments(*sides), ddof=ddof, root=root)
    assert distance.value == pytest.approx(reference(*sides, ddof), rel=1e-8)
    assert distance.value == pytest.approx(distance.mean_term + distance.covariance_term)
    assert (distance.rank_real, distance.rank_fake, distance.dimension) == (32, 32, 32)
    assert not distance.deficient and distance.note is None


@pytest.mark.parametrize("root", ["eigh", "sqrtm"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_rank_deficient_agrees_with_the_reference_and_says_so(ddof: int, root: Root) -> None:
    sides = gaussians(20, 64)
    distance = frechet_distance(*moments(*sides), ddof=ddof, root=root)
    # The tolerance is the reference's: it takes the root of rounding noise, 1e-8 for each of the 45 missing dimensions.
    assert distance.value == pytest.approx(reference(*sides, ddof), rel=1e-4)
    assert (distance.rank_real, distance.rank_fake, distance.dimension) == (19, 26, 64)
    assert distance.deficient and distance.note is not None and "19 (real) and 26 (fake) of 64" in distance.note


def test_rank_deficient_is_exact_where_the_answer_is_known() -> None:
    """Diagonal covariances of a few dimensions out of many: the distance is a sum of (σ₁ − σ₂)²."""
    signs = np.array([1.0, -1.0])[:, None]
    real_ND, fake_ND = np.zeros((4, 50)), np.zeros((4, 50))
    real_ND[:2, :1], real_ND[2:, 1:2] = 3 * signs, 5 * signs
    fake_ND[:2, :1], fake_ND[2:, 2:3] = 1 * signs, 2 * signs
    # With ddof 0 the variances are 9/2, 25/2, 0 and 1/2, 0, 4/2.
    expected = (3 - 1) ** 2 / 2 + 25 / 2 + 4 / 2
    assert frechet_distance(*moments(real_ND, fake_ND)).value == pytest.approx(expected, rel=1e-14)


def test_ranks_are_bounded_and_count_copies_once() -> None:
    real_ND, _ = gaussians(30, 12)
    assert Moments.from_features(real_ND).rank == 12
    assert Moments.from_features(real_ND[:9]).rank == 8
    assert Moments.from_features(np.repeat(real_ND[:4], 10, 0)).rank == 3
    assert Moments.from_features(np.ones((5, 12))).rank == 0


def test_ddof_changes_only_the_covariances_scale() -> None:
    real_ND, fake_ND = gaussians(25, 6)
    sides = moments(real_ND, fake_ND[:25])
    unbiased, biased = (frechet_distance(*sides, ddof=ddof) for ddof in (1, 0))
    assert unbiased.mean_term == biased.mean_term
    assert unbiased.covariance_term == pytest.approx(biased.covariance_term * 25 / 24)


@pytest.mark.parametrize("n, dimension", [(90, 10), (40, 64), (70, 64)])
def test_merging_in_any_order_and_partition_gives_the_same(n: int, dimension: int) -> None:
    values_ND, other_ND = gaussians(n, dimension)
    whole, other = moments(values_ND, other_ND)
    generator = np.random.default_rng(1)
    for cuts in ([], [1], [3, 3, 20], sorted(generator.integers(0, n, 12)), range(1, n)):
        parts = [Moments.from_features(part) for part in np.split(values_ND, list(cuts))]
        for order in (parts, parts[::-1], [parts[i] for i in generator.permutation(len(parts))]):
            merged = reduce(Moments.merge, order)
            assert merged.n == n and len(merged.factor_RD) <= n + dimension
            np.testing.assert_allclose(merged.mean_D, whole.mean_D, rtol=1e-12)
            scale = np.abs(whole.covariance(1)).max()
            np.testing.assert_allclose(merged.covariance(1), whole.covariance(1), rtol=0, atol=1e-12 * scale)
            distances = [frechet_distance(side, other) for side in (merged, whole)]
            assert distances[0].value == pytest.approx(distances[1].value, rel=1e-12)
            assert distances[0].rank_real == distances[1].rank_real


def test_a_factor_never_outgrows_the_features() -> None:
    merged = reduce(Moments.merge, [Moments.from_features(part) for part in np.split(gaussians(90, 10)[0], 30)])
    assert merged.factor_RD.shape == (10, 10)


def test_torch_float32_and_a_large_offset() -> None:
    real_ND, fake_ND = (side.astype(np.float32) + np.float32(1000) for side in gaussians(80, 8))
    from_torch = moments(torch.from_numpy(real_ND), torch.from_numpy(fake_ND))
    expected = reference(real_ND.astype(np.float64), fake_ND.astype(np.float64), 0)
    assert frechet_distance(*from_torch).value == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_refused_in_one_line(broken: float) -> None:
    features_ND, _ = gaussians(9, 4)
    features_ND[5, 2] = broken
    with pytest.raises(MagiError, match=r"^features of 1 of 9 samples are not finite \(first: 5\)$"):
        Moments.from_features(features_ND)


def test_other_mistakes_are_refused_in_one_line() -> None:
    real, one = moments(np.ones((4, 3)), np.ones((1, 3)))
    with pytest.raises(MagiError, match=r"^a Fréchet distance needs at least 2 samples on each side, got 1$"):
        frechet_distance(real, one)
    with pytest.raises(MagiError, match=r"^both sets need the same features, got 3 and 2 of them$"):
        frechet_distance(real, Moments.from_features(np.ones((4, 2))))
    with pytest.raises(MagiError, match=r"^features must have the shape \[samples, features\], got \[3\]$"):
        Moments.from_features(np.ones(3))
    with pytest.raises(MagiError, match=r"^ddof is 0 or 1, got 2$"):
        frechet_distance(real, real, ddof=2)
    with pytest.raises(MagiError, match=r'^root is "eigh" or "sqrtm", got \'cholesky\'$'):
        frechet_distance(real, real, root="cholesky")  # type: ignore[arg-type]
    with pytest.raises(MagiError, match=r"^resamples is at least 2 and level within \(0, 1\), got 1 and 0.95$"):
        bootstrap_interval(np.ones((4, 3)), np.ones((4, 3)), resamples=1)


def test_the_interval_is_seeded_and_around_the_estimate() -> None:
    sides = gaussians(60, 5)
    low, high = bootstrap_interval(*sides, seed=3)
    assert (low, high) == bootstrap_interval(*sides, seed=3) != bootstrap_interval(*sides, seed=4)
    assert (low + high) / 2 == pytest.approx(frechet_distance(*moments(*sides)).value)
    narrow = bootstrap_interval(*sides, seed=3, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_interval_covers_the_true_distance_about_as_often_as_it_says() -> None:
    """Two Gaussians in 3 dimensions, far enough apart and with samples enough for the estimate's bias to be small."""
    deviations_D, step = np.array([1.0, 2.0, 0.5]), 2.0
    true = 3 * step**2 + np.square(deviations_D - 1).sum()
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(120):
        real_ND = generator.normal(size=(80, 3))
        fake_ND = generator.normal(size=(80, 3)) * deviations_D + step
        low, high = bootstrap_interval(real_ND, fake_ND, ddof=1, resamples=60, seed=trial)
        covered += low < true < high
    assert 0.88 <= covered / 120 <= 0.99


def test_the_interval_errs_on_the_wide_side_with_fewer_samples_than_features() -> None:
    estimates, margins = [], []
    for trial in range(60):
        sides = np.random.default_rng(trial).normal(size=(2, 15, 40)) * [[[1.0]], [[1.2]]]
        estimates.append(frechet_distance(*moments(*sides)).value)
        if trial < 20:
            low, high = bootstrap_interval(*sides, resamples=40)
            margins.append((high - low) / 2)
    assert 1 < np.mean(margins) / (1.96 * np.std(estimates)) < 3


def test_the_interval_takes_the_costly_root_once_not_for_every_resample(monkeypatch: pytest.MonkeyPatch) -> None:
    roots = []
    monkeypatch.setattr(frechet, "sqrtm", lambda product: roots.append(1) or sqrtm(product))  # type: ignore[func-returns-value]
    generator = np.random.default_rng(0)
    real_ND, fake_ND = generator.normal(size=(64, 20)), 1.1 * generator.normal(size=(64, 20))
    low, high = bootstrap_interval(real_ND, fake_ND, root="sqrtm")
    assert 0 < low < high and len(roots) == 1


def test_windows_of_one_video_are_drawn_together() -> None:
    random = np.random.default_rng(0)
    real, videos = random.normal(size=(64, 4)), random.normal(1, 1, size=(16, 4))
    windows = np.concatenate([videos + random.normal(0, 0.01, size=videos.shape) for _ in range(4)])  # near copies
    together, singly = (np.ptp(bootstrap_interval(real, windows, parts=parts)) for parts in (4, 1))
    assert together > 1.3 * singly, "four copies of sixteen videos are not sixty-four"
    with pytest.raises(MagiError, match="64 rows are not 3 equal parts"):
        bootstrap_interval(real, windows, parts=3)

import numpy as np
import pytest
from scipy.stats import bootstrap

from regrow.report.statistics import bin_centres, bin_means, bin_width, mean_interval, nan_mean


def test_the_interval_agrees_with_scipy():
    values = np.random.default_rng(1).normal([0.0, 5.0, -3.0], [1.0, 0.1, 2.0], size=(12, 3))
    own = mean_interval(values)
    reference = bootstrap((values,), np.mean, axis=0, n_resamples=50_000, method="percentile").confidence_interval
    width = reference.high - reference.low
    assert own.mean == pytest.approx(values.mean(0))
    assert (np.abs(own.high - reference.high) < 0.05 * width).all()
    assert (np.abs(own.low - reference.low) < 0.05 * width).all()


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says():
    values = np.random.default_rng(2).normal(size=(30, 2000))
    own = mean_interval(values)
    assert 0.91 < ((own.low <= 0) & (own.high >= 0)).mean() < 0.97


def test_the_same_values_give_the_same_interval_in_any_company():
    values = np.random.default_rng(3).normal(size=(5, 4))
    assert np.array_equal(mean_interval(values).low, mean_interval(values).low)
    assert mean_interval(values[:, 1]).high == pytest.approx(mean_interval(values).high[1], abs=1e-12)


def test_equal_runs_have_an_interval_of_no_width():
    own = mean_interval(np.full((5, 2), 0.25))
    assert own.low == pytest.approx([0.25, 0.25]) and own.high == pytest.approx([0.25, 0.25])


def test_one_run_has_no_interval():
    own = mean_interval(np.array([[1.0, 2.0]]))
    assert own.mean.tolist() == [1, 2] and np.isnan(own.low).all() and np.isnan(own.high).all()


def test_a_missing_value_stays_in_its_column():
    own = mean_interval(np.array([[1.0, np.nan], [3.0, 4.0]]))
    assert own.mean[0] == 2 and own.low[0] == 1 and own.high[0] == 3
    assert np.isnan([own.mean[1], own.low[1], own.high[1]]).all()


@pytest.mark.parametrize(("tasks", "width"), [(1, 1), (50, 1), (51, 2), (200, 5), (400, 10), (800, 20), (5000, 100)])
def test_bin_width(tasks, width):
    assert bin_width(tasks) == width


def test_bins():
    values = np.array([[1.0, 3.0, 5.0, np.nan, 10.0], [0.0, 0.0, np.nan, np.nan, 7.0]])
    means = bin_means(values, 2)
    assert means[0].tolist() == [2, 5, 10]
    assert means[1, 0] == 0 and np.isnan(means[1, 1]) and means[1, 2] == 7
    assert bin_centres(5, 2).tolist() == [1.5, 3.5, 5]
    assert bin_centres(3, 1).tolist() == [1, 2, 3]


def test_nan_mean():
    assert nan_mean(np.array([1.0, np.nan, 3.0])) == 2
    assert np.isnan(nan_mean(np.array([np.nan])))

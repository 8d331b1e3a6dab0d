"""When to stop, what was best, and that a resumed run remembers both."""

import math

from training.early_stopping import EarlyStopping


def feed(stopping, *metrics):
    return [stopping.update(metric, epoch) for epoch, metric in enumerate(metrics, start=1)]


def test_it_stops_after_patience_without_improvement():
    stopping = EarlyStopping(patience=2, min_delta=0.01)
    assert feed(stopping, 0.5, 0.6, 0.605, 0.59) == [True, True, False, False]
    assert stopping.stop
    assert stopping.best == 0.6
    assert stopping.best_epoch == 2


def test_as_good_as_the_best_is_no_improvement():
    assert feed(EarlyStopping(patience=2, min_delta=0.0), 0.5, 0.5) == [True, False]
    assert feed(EarlyStopping(patience=2, min_delta=0.5), 0.5, 1.0) == [True, False]


def test_an_improvement_resets_the_patience():
    stopping = EarlyStopping(patience=2, min_delta=0.0)
    feed(stopping, 0.5, 0.4, 0.6, 0.5)
    assert not stopping.stop


def test_lower_can_be_better():
    stopping = EarlyStopping(patience=1, min_delta=0.0, higher_is_better=False)
    assert feed(stopping, 2.0, 1.0, 1.5) == [True, True, False]


def test_a_metric_that_is_no_number_is_never_the_best():
    stopping = EarlyStopping(patience=3, min_delta=0.0)
    assert feed(stopping, math.nan, 0.1, math.nan) == [False, True, False]
    assert stopping.best == 0.1


def test_its_state_survives_a_restart():
    stopping = EarlyStopping(patience=2, min_delta=0.0)
    feed(stopping, 0.5, 0.4)
    resumed = EarlyStopping(patience=2, min_delta=0.0)
    resumed.load_state_dict(stopping.state_dict())
    assert not resumed.update(0.45, 3)
    assert resumed.stop
    assert resumed.best == 0.5

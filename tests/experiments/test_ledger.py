"""What the places to run keep alike, with no process at all."""

import pytest
from rich.console import Console

from regrow.experiments.display import Log
from regrow.experiments.ledger import KILLS, Ledger
from tests.experiments.small_study import jobs


@pytest.fixture
def ledger(tmp_path):
    return Ledger(jobs(tmp_path, "plain", 3), Log(Console(quiet=True)), None)


def test_each_job_is_handed_out_once_and_ends_once(ledger):
    first, second, third = handed = [ledger.next() for _ in ledger.jobs]
    assert handed == list(ledger.jobs) and ledger.next() is None
    ledger.end(first, {"kind": "done"})
    ledger.end(second, {"kind": "stopped"})
    assert ledger.is_open
    ledger.end(third, {"kind": "failed", "error": "ValueError: no"})
    assert not ledger.is_open
    assert (ledger.ended.done, ledger.ended.left) == (1, 1)
    assert [(each.job, each.error) for each in ledger.ended.failures] == [(third, "ValueError: no")]
    assert first.task == first.spec.tasks


def test_a_run_that_another_process_holds_is_asked_for_again_later(ledger, monkeypatch):
    now = 50.0
    monkeypatch.setattr("regrow.experiments.ledger.time.monotonic", lambda: now)
    first = ledger.next()
    ledger.end(first, {"kind": "busy"})
    assert first not in [ledger.next() for _ in ledger.jobs]
    now = 51.0
    assert ledger.next() is first


def test_all_that_waits_is_left_when_the_time_is_over(ledger):
    first = ledger.next()
    ledger.until = 0.0
    assert ledger.next() is None and ledger.ended.left == 2
    ledger.end(first, {"kind": "stopped"})
    assert not ledger.is_open


def test_a_lost_run_comes_first_and_is_given_up_unless_a_task_was_done_in_between(ledger):
    first = ledger.next()
    for _ in range(KILLS - 1):
        ledger.lose(first, "was killed by signal 9")
        assert ledger.next() is first
    ledger.hear(first, {"task": 0})
    for _ in range(KILLS - 1):
        ledger.lose(first, "was killed by signal 9")
        assert ledger.next() is first
    ledger.hear(first, {"task": 0})  # done once more after the kill, so no progress
    ledger.lose(first, "was killed by signal 9")
    (failure,) = ledger.ended.failures
    assert failure.error == (
        "Its worker was lost 3 times with no task done in between; the last one was killed by signal 9."
    )

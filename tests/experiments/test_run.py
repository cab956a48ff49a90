from contextlib import suppress

import pytest
import torch

import regrow.experiments.run as run_module
from regrow.errors import StoreError
from regrow.experiments.course import Pace
from regrow.experiments.results import read_curves, read_rows
from regrow.experiments.run import run
from regrow.experiments.store import RunFolder
from tests.experiments.small_study import CHECKPOINT_RULE, jobs

COLUMNS = [
    "task",
    "accuracy",
    "article_rank",
    "dormant",
    "effective_rank",
    "stable_rank",
    "weight_magnitude",
    "replacements",
]


@pytest.fixture(autouse=True)
def settings():
    """What a run sets in its process, put back."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def finished(out, engine):
    """A run, or one of two seeds side by side; and its rows."""
    (job,) = jobs(out, engine, seeds=2 if engine == "batched" else 1)
    rows = []
    with job.folder.locked():
        run(job.folder, rows.append)
    return job.folder, rows


@pytest.mark.parametrize("engine", ["plain", "fused", "batched"])
def test_when_it_saves_does_not_change_the_bytes(engine, tmp_path, monkeypatch):
    often, rows = finished(tmp_path / "often", engine)
    assert [row["task"] for row in rows] == list(range(12))
    monkeypatch.setattr(run_module, "_checkpoint_due", lambda task, passed, cost: False)
    seldom, again = finished(tmp_path / "seldom", engine)
    assert again == rows
    for name in ("curve.parquet", "checkpoint.safetensors", "spec.json", "DONE"):
        assert (often.path / name).read_bytes() == (seldom.path / name).read_bytes()


@pytest.mark.parametrize("engine", ["plain", "fused", "batched"])
def test_a_long_task_is_saved_on_the_way(engine, tmp_path, monkeypatch):
    whole, rows = finished(tmp_path / "whole", engine)
    monkeypatch.setattr(Pace, "passed", lambda self, amount, seconds: setattr(self, "amount", 37))
    monkeypatch.setattr(run_module, "_checkpoint_due", lambda done, passed, cost: True)
    (job,) = jobs(tmp_path / "pieces", engine, seeds=2 if engine == "batched" else 1)
    places = []
    original = RunFolder.save

    def save(self, done, state):
        original(self, done, state)
        places.append((done, state["position"]))
        if len(places) % 5 == 0:
            raise KeyboardInterrupt  # and taken up again, from that very checkpoint

    monkeypatch.setattr(RunFolder, "save", save)
    for _ in range(30):
        with suppress(KeyboardInterrupt):
            run(job.folder)
            break
    assert {(3, 37), (3, 74), (4, 0)} <= set(places)
    for name in ("curve.parquet", "checkpoint.safetensors"):
        assert (job.folder.path / name).read_bytes() == (whole.path / name).read_bytes()


def test_saving_takes_a_hundredth_of_the_time_at_most():
    assert not CHECKPOINT_RULE(7, 1.99, 0.001) and CHECKPOINT_RULE(7, 2.0, 0.001)
    assert not CHECKPOINT_RULE(7, 29.9, 0.3) and CHECKPOINT_RULE(7, 30.0, 0.3)


def test_both_engines_draw_the_same_curve(tmp_path):
    (_, plain), (_, fused) = finished(tmp_path, "plain"), finished(tmp_path, "fused")
    assert plain[-1]["replacements"] == fused[-1]["replacements"] > 100
    for left, right in zip(plain, fused, strict=True):
        assert left == pytest.approx(right, rel=1e-3, abs=1e-6)


def test_seeds_side_by_side_draw_the_curves_that_they_draw_alone(tmp_path):
    (together,) = jobs(tmp_path, "batched", seeds=3)
    alone = jobs(tmp_path, "plain", seeds=3)
    for job in (together, *alone):
        run(job.folder)
    curves, expected = read_curves([together.folder]), read_curves(job.folder for job in alone)
    assert curves.columns == expected.columns
    assert curves["engine"].unique().to_list() == ["batched"]
    assert curves["seed"].to_list() == [0] * 12 + [1] * 12 + [2] * 12
    assert curves["replacements"].max() > 100
    for name in ("seed", "task", *COLUMNS):
        assert curves[name].to_list() == pytest.approx(expected[name].to_list(), rel=1e-3, abs=1e-6)


def test_the_table_of_results_holds_all_runs_finished_or_not(tmp_path):
    first, second = jobs(tmp_path, "fused")
    run(first.folder)
    run(second.folder)
    rows = read_curves([second.folder]).to_dicts()
    for name in ("DONE", "timing.jsonl"):  # as if it were still running, at its fourth task
        (second.folder.path / name).unlink()
    for row in rows[:4]:
        second.folder.append({name: row[name] for name in COLUMNS}, {"task": row["task"], "seconds": 1.0})
    curves = read_curves([first.folder, second.folder])
    assert curves.columns == ["study", "scale", "method", "seed", "engine", *COLUMNS, "seconds"]
    assert curves["seed"].to_list() == [0] * 12 + [1] * 4
    assert curves["task"].to_list() == [*range(12), *range(4)]
    assert curves["seconds"][:12].is_sorted()
    assert curves["accuracy"][12:].to_list() == [row["accuracy"] for row in rows[:4]]


def test_no_run_gives_an_empty_table(tmp_path):
    assert read_curves([job.folder for job in jobs(tmp_path, "fused")]).is_empty()


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("curve.parquet", lambda data: data[:-9], "it is not what was written when the run was done (DONE)"),
        ("curve.parquet", lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:], "it is not what was written"),
        ("DONE", lambda data: b"", "it has no digest of curve.parquet"),
    ],
)
def test_a_damaged_result_is_refused(name, damage, message, tmp_path):
    folder, _ = finished(tmp_path, "fused")
    place = folder.path / name
    place.write_bytes(damage(place.read_bytes()))
    with pytest.raises(StoreError) as caught:
        read_curves([folder])
    assert str(caught.value).startswith(f"{place} is damaged: {message}")
    assert str(caught.value).endswith(f". Delete the folder {folder.path} to run it again.")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_lost_timings_leave_the_results(damage, tmp_path):
    folder, rows = finished(tmp_path, "fused")
    damage(folder.path / "timing.jsonl")
    curves = read_curves([folder])
    assert curves["accuracy"].to_list() == [row["accuracy"] for row in rows]
    assert curves["seconds"].is_null().all()


def test_a_run_that_ends_while_it_is_read_is_read_whole(tmp_path, monkeypatch):
    folder, rows = finished(tmp_path, "fused")
    answers = iter([False, True])
    monkeypatch.setattr(RunFolder, "is_done", lambda self: next(answers))
    assert read_rows(folder)["accuracy"].to_list() == [row["accuracy"] for row in rows]

"""Killing and stopping in all ways: the bytes in the end are those of an undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from regrow.errors import StoreError
from regrow.experiments.checkpoint import decode
from regrow.experiments.display import Log
from regrow.experiments.execute import Ended, execute
from regrow.experiments.store import RunFolder
from regrow.experiments.worker import work
from tests.experiments.small_study import jobs

ROOT = Path(__file__).parents[2]
ENGINES = ["plain", "fused"]
LIMIT = 300  # seconds that nothing here comes near, even on a busy machine


def start(out, engine, *more, gate=""):
    call = "import sys; from tests.experiments.small_study import main; main(*sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", call, str(out), engine, *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=os.environ | {"GATE": str(gate)},
    )


def end(process):
    output, _ = process.communicate(timeout=LIMIT)
    return process.returncode, output


def wait_for(condition, process=None):
    limit = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < limit and (process is None or process.poll() is None)
        time.sleep(0.005)
    return found


def children(process):
    """Ids of the processes that a process has started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def tasks_saved(folder):
    place = folder.path / "checkpoint.safetensors"
    return decode(place)["task"] if place.exists() else 0


def results(out, engine):
    """The bytes that must not depend on disturbances."""
    return [
        (
            job.folder.path.name,
            job.folder.parquet.read_bytes(),
            (job.folder.path / "checkpoint.safetensors").read_bytes(),
        )
        for job in jobs(out, engine)
    ]


@pytest.fixture(scope="module", params=ENGINES)
def undisturbed(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed")
    code, output = end(start(out, request.param))
    assert code == 0, output
    return request.param, results(out, request.param)


def test_killed_and_stopped_in_every_way_it_ends_with_the_same_bytes(undisturbed, tmp_path):
    engine, expected = undisturbed
    gate, out = tmp_path / "gate", tmp_path / "out"
    gate.write_text("2")
    process = start(out, engine, gate=gate)
    folder = jobs(out, engine)[0].folder

    def workers_at(task):
        """The workers, once the first run waits at the gate before a task; it saves after every third."""
        wait_for(lambda: folder.length() == task and task - tasks_saved(folder) < 3, process)
        return wait_for(lambda: children(process), process)

    for task, later in ((2, 5), (5, 8)):  # a worker is killed: it is replaced, and its run resumed
        os.kill(workers_at(task)[0], signal.SIGKILL)
        gate.write_text(str(later))

    workers = workers_at(8)
    process.kill()  # the supervisor is killed: its workers end too
    _, output = end(process)
    assert output.count("was killed by signal 9; cbp+noise, seed 0 goes on from its checkpoint.") == 2
    wait_for(lambda: not any(map(alive, workers)))
    assert (folder.state(), tasks_saved(folder)) == ("stopped", 6)
    with open(folder.path / "curve.jsonl", "ab") as file:
        file.write(b'{"task":8,"accu')  # as if it had been writing

    gate.write_text("10")
    process = start(out, engine, gate=gate)
    workers = workers_at(10)
    os.killpg(process.pid, signal.SIGINT)  # Ctrl-C
    assert end(process) == (130, "")
    assert not any(map(alive, workers))
    assert folder.state() == "stopped"

    assert end(start(out, engine)) == (0, "")
    assert results(out, engine) == expected


def test_two_supervisors_in_one_folder_share_the_work(tmp_path):
    first, second = start(tmp_path, "plain", "3"), start(tmp_path, "plain", "3")
    assert [end(first), end(second)] == [(0, ""), (0, "")]
    assert [job.folder.state() for job in jobs(tmp_path, "plain", 3)] == ["done"] * 3
    assert all(len(job.folder.timings()) == job.spec.tasks for job in jobs(tmp_path, "plain", 3))


def test_a_run_that_is_done_is_not_run_again(tmp_path):
    assert end(start(tmp_path, "plain", "1"))[0] == 0
    folder = jobs(tmp_path, "plain", 1)[0].folder
    before = {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    assert end(start(tmp_path, "plain", "1"))[0] == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir()} == before


def test_a_run_that_another_process_holds_is_waited_for(tmp_path):
    folder = jobs(tmp_path, "plain", 1)[0].folder
    with folder.locked() as free:
        assert free
        assert folder.state() == "running"
        process = start(tmp_path, "plain", "1")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        assert not (folder.path / "curve.jsonl").exists()
    assert end(process)[0] == 0
    assert folder.state() == "done"


def test_a_worker_imports_what_the_supervisor_does_and_nothing_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "queue.py").write_text("raise SystemExit('not the queue that was meant')")
    monkeypatch.syspath_prepend(str(ROOT))  # where nothing but this process knows that regrow is
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    (job,) = jobs(tmp_path, "plain", 1)
    assert execute([job], 1, Log(Console(width=200))) == Ended(done=1)
    assert job.folder.state() == "done"


def test_a_worker_whose_supervisor_is_gone_leaves_no_error(tmp_path):
    folder = jobs(tmp_path, "plain", 1)[0].folder
    process = subprocess.Popen(
        [sys.executable, "-m", "regrow.experiments.worker"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdout.close()  # as when the supervisor is killed, a moment before the end of its messages is seen
    job = {"folder": str(folder.path), "module": jobs.__module__, "until": None}
    process.stdin.write(json.dumps(job).encode() + b"\n")
    process.stdin.flush()
    assert process.wait(LIMIT) == 0
    assert process.stderr.read() == b""
    assert folder.state() == "stopped"
    process.stdin.close()
    process.stderr.close()


def test_an_error_is_told_although_its_traceback_cannot_be_kept(tmp_path, monkeypatch):
    def full(folder, traceback):
        raise StoreError("no room for error.txt")

    monkeypatch.setattr(RunFolder, "fail", full)
    folder = jobs(tmp_path, "plain", 1)[0].folder
    answer = work({"folder": str(folder.path), "module": "tests.nowhere", "until": None}, lambda row: None)
    assert answer == {"kind": "failed", "error": "ModuleNotFoundError: No module named 'tests.nowhere'"}


def test_a_run_that_raises_is_given_up_and_the_others_go_on(tmp_path):
    code, output = end(start(tmp_path, "plain", "3", "raise"))
    assert code == 2
    assert output.count("ValueError: no data today") == 2
    states = [job.folder.state() for job in jobs(tmp_path, "plain", 3, "raise")]
    assert states == ["done", "failed", "failed"]
    traceback = (jobs(tmp_path, "plain", 3, "raise")[1].folder.path / "error.txt").read_text()
    assert traceback.startswith("Traceback") and "no data today" in traceback


def test_a_run_that_kills_its_worker_is_given_up_after_three_times_without_progress(tmp_path):
    code, output = end(start(tmp_path, "plain", "1", "die"))
    assert code == 1
    assert "Its worker was lost 3 times with no task done in between; the last one was killed by signal 9." in output
    (job,) = jobs(tmp_path, "plain", 1, "die")
    assert len(job.folder.rows()) == 3
    assert job.folder.state() == "stopped"

"""Runs on Ray: one cluster of two workers on this machine; and places that cannot serve."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

import regrow.experiments.on_ray as on_ray
from regrow.errors import ConfigError
from regrow.experiments.display import Log
from regrow.experiments.execute import Ended, execute
from regrow.experiments.worker import work
from tests.experiments.small_study import jobs
from tests.experiments.test_execute import results, wait_for

pytestmark = pytest.mark.xdist_group("ray")
LIMIT = 240  # seconds that nothing here comes near


def silent():
    return Log(Console(quiet=True))


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    """The file that says before which task the runs of the cluster wait; and the cluster."""
    ray = pytest.importorskip("ray")
    gate = tmp_path_factory.mktemp("ray") / "gate"
    gate.write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GATE", str(gate))  # its processes have the environment of this one
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Below /tmp, for the paths of its sockets must be short.
        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
        yield gate
        ray.shutdown()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    place = tmp_path_factory.mktemp("undisturbed")
    assert execute(jobs(place, "fused"), 1, silent()) == Ended(done=2)
    return results(place, "fused")


@pytest.fixture
def no_token(tmp_path, monkeypatch):
    """A home of a user who has no token; and the environment is put back."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path


def holder(folder):
    """Id of the process that holds a run."""
    file = (folder.path / "lock").stat().st_ino
    for line in Path("/proc/locks").read_text().splitlines():
        _, kind, _, _, pid, place, *_ = line.split()
        if kind == "FLOCK" and int(place.split(":")[2]) == file:
            return int(pid)
    return None


@pytest.mark.slow
def test_a_killed_worker_of_ray_changes_no_byte(gate, undisturbed, tmp_path):
    gate.write_text("5")
    todo, ended = jobs(tmp_path, "fused"), []
    thread = threading.Thread(target=lambda: ended.append(execute(todo, 2, silent(), "ray")), daemon=True)
    thread.start()
    wait_for(lambda: all(job.folder.length() == 5 for job in todo))  # both at work, saved after the third task
    victim = holder(todo[0].folder)
    assert victim not in (None, os.getpid(), holder(todo[1].folder))
    os.kill(victim, signal.SIGKILL)
    gate.write_text("")
    thread.join(LIMIT)
    assert ended == [Ended(done=2)]
    assert results(tmp_path, "fused") == undisturbed


@pytest.mark.slow
def test_on_ray_too_a_budget_ends_with_all_saved(gate, undisturbed, tmp_path):
    gate.write_text("2")  # where runs that have begun are when the time is over
    todo, until = jobs(tmp_path, "fused"), time.time() + 2
    opened = threading.Timer(3, gate.write_text, [""])
    opened.start()
    assert execute(todo, 2, silent(), "ray", until=until) == Ended(left=2)
    opened.join()
    assert all(job.folder.length() <= 3 and not job.folder.is_done() for job in todo)
    assert execute(jobs(tmp_path, "fused"), 2, silent(), "ray") == Ended(done=2)
    assert results(tmp_path, "fused") == undisturbed


def test_a_machine_that_does_not_see_the_folder_says_so(tmp_path):
    message = {"folder": str(tmp_path / "elsewhere"), "module": "tests.experiments.small_study", "until": None}
    answer = work(message, lambda row: None)
    assert answer["kind"] == "failed"
    assert "elsewhere is not there on " in answer["error"]
    assert "all machines must see the folder of all runs under the same name. Give a folder of" in answer["error"]


def test_an_address_where_nobody_answers_is_told_soon(no_token):
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever calls is refused
        port = taken.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(ConfigError, match=rf"No Ray cluster answers at ray://127.0.0.1:{port} .*ray start --head"):
            execute([], 1, silent(), f"ray://127.0.0.1:{port}")
    assert time.monotonic() - began < 15


def test_something_else_that_answers_is_no_cluster(no_token, monkeypatch):
    ray = pytest.importorskip("ray")

    def init(*settings, **more):
        raise ConnectionError("this is no Ray")

    monkeypatch.setattr(ray, "init", init)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"No Ray cluster answers at ray://127.0.0.1:{port} \(this is no Ray\)"):
            on_ray.execute_on_ray([], 1, silent(), f"ray://127.0.0.1:{port}")


@pytest.mark.parametrize(("place", "mode"), [(".ray", "token"), ("elsewhere", None)])
def test_a_client_sends_the_token_that_there_is(place, mode, no_token, tmp_path, monkeypatch):
    """To a cluster, that is, which asks for it as soon as its user has one."""
    ray = pytest.importorskip("ray")
    (no_token / place).mkdir()
    (no_token / place / "auth_token").write_text("secret")

    def init(*settings, **more):
        raise ConnectionError(f"the mode is {os.environ.get('RAY_AUTH_MODE')}")

    monkeypatch.setattr(ray, "init", init)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"\(the mode is {mode}\).*put it into RAY_AUTH_TOKEN here"):
            on_ray.execute_on_ray([], 1, silent(), f"ray://127.0.0.1:{port}")


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray, which is not installed: pip install 'regrow\[cluster\]'"):
        execute([], 1, silent(), "ray")


def test_a_place_that_is_none():
    with pytest.raises(ConfigError, match="^--on mars is no place to run: give local, ray, or the address"):
        execute([], 1, silent(), "mars")


def test_when_the_time_is_over_before_it_begins_all_is_left(tmp_path):
    todo = jobs(tmp_path, "plain")
    assert execute(todo, 2, silent(), until=time.time() - 1) == Ended(left=len(todo))

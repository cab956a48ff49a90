"""Places to run that cannot serve, and time that is over."""

import socket
import sys
import time

import pytest
from rich.console import Console

from regrow.errors import ConfigError
from regrow.experiments.display import Log
from regrow.experiments.execute import Ended, execute
from tests.experiments.small_study import jobs


def silent():
    return Log(Console(quiet=True))


def test_an_address_where_nobody_answers_is_told_soon():
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever calls is refused
        port = taken.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(ConfigError, match=rf"No Ray cluster answers at ray://127.0.0.1:{port} .*ray start --head"):
            execute([], 1, silent(), f"ray://127.0.0.1:{port}")
    assert time.monotonic() - began < 15


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray, which is not installed: pip install 'regrow\[cluster\]'"):
        execute([], 1, silent(), "ray")


def test_when_the_time_is_over_before_it_begins_all_is_left(tmp_path):
    todo = jobs(tmp_path, "plain")
    assert execute(todo, 2, silent(), until=time.time() - 1) == Ended(left=len(todo))

"""The command as its user meets it, on smoke runs."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import polars as pl
import pytest

from regrow.cli import console, main
from regrow.experiments.store import RunFolder

ROOT = Path(__file__).parents[1]
LIMIT = 120


def begin(*words, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "regrow.cli", *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"COLUMNS": "200"} | environment,
    )


def regrow(*words, **environment):
    """Exit code, standard output and standard error of a command."""
    process = begin(*words, **environment)
    output, errors = process.communicate(timeout=LIMIT)
    return process.returncode, output, errors


@pytest.fixture
def here(monkeypatch, capsys):
    """The same within this process, for what runs nothing."""

    monkeypatch.setattr(console, "width", 200)  # whatever COLUMNS was when the command was imported

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["regrow", *words])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A smoke study that has been run, and what was printed."""
    out = tmp_path_factory.mktemp("runs")
    code, output, errors = regrow("run", "permuted-digits", "--scale", "smoke", "--out", out)
    assert (code, errors) == (0, "")
    return out, output


def folders(out):
    return sorted(place.parent for place in out.glob("*/*/spec.json"))


def test_a_study_runs_and_reports(smoke):
    out, output = smoke
    assert "permuted-digits, smoke: 1,797 real digits" in output
    assert "from the package (UCI" in output
    assert "10: backprop, cbp, l2, shrink-and-perturb, random-replacement; 2 seeds; 4 tasks" in output
    assert "engine    fused" in output
    assert re.search(r"Continual backprop +2 ", output)
    assert "2 seeds." in output
    place = out / "permuted-digits" / "smoke"
    assert f"figure  {place / 'figure.png'}\npage    {place / 'report.html'}" in output
    assert (place / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "regrow run permuted-digits --scale smoke --seeds 2" in (place / "report.html").read_text()
    assert len(folders(out)) == 10
    assert all((folder / "DONE").exists() for folder in folders(out))


def test_what_is_done_is_not_run_again(smoke):
    out, _ = smoke
    before = {path: path.stat().st_mtime_ns for folder in folders(out) for path in folder.iterdir()}
    code, output, _ = regrow("run", "permuted-digits", "--scale", "smoke", "--out", out)
    assert code == 0
    assert "10 of 10 runs are done already." in output
    assert {path: path.stat().st_mtime_ns for folder in folders(out) for path in folder.iterdir()} == before


def test_report_draws_again(smoke):
    out, before = smoke
    picture = out / "permuted-digits" / "smoke" / "figure.png"
    picture.unlink()
    for place in (out, out / "permuted-digits"):
        code, output, errors = regrow("report", place)
        assert (code, errors) == (0, "")
        assert before.endswith(output)
    assert picture.exists()


def test_report_keeps_curves_in_a_small_file(smoke, tmp_path):
    path = tmp_path / "curves.parquet"
    code, output, errors = regrow("report", smoke[0], "--curves", path)
    assert (code, errors) == (0, "")
    assert output.endswith(f"curves  {path}\n")
    table = pl.read_parquet(path)
    assert set(table["scale"]) == {"smoke"} and table["method"].n_unique() == 5 and set(table["seeds"]) == {2}


def test_watch_shows_all_runs_and_ends_when_they_are_done(smoke):
    out, _ = smoke
    for more in ([], ["--once"]):
        code, output, errors = regrow("watch", out / "permuted-digits", *more)
        assert (code, errors) == (0, "")
        assert len(re.findall(r" done +4/4 ", output)) == 10
        assert "10 done" in output


def test_a_terminal_that_cannot_show_every_character_gets_the_rest(smoke):
    code, output, errors = regrow("report", smoke[0], PYTHONIOENCODING="ascii", COLUMNS="wide")
    assert (code, errors) == (0, "")
    assert "online accuracy, first ? last 2 tasks, 2 seeds." in output


def test_watch_on_a_terminal(smoke):
    """Also where it is far too small."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (5, 40))
    done = subprocess.run(
        [sys.executable, "-m", "regrow.cli", "watch", smoke[0]], cwd=ROOT, stdin=end, stdout=end, stderr=end
    )
    os.close(end)
    assert done.returncode == 0
    assert b"10 done" in os.read(terminal, 1 << 16)
    os.close(terminal)


def test_dry_run_writes_nothing(smoke, tmp_path):
    out, _ = smoke
    words = ("run", "permuted-digits", "--scale", "smoke", "--dry-run", "--seeds", "1", "--methods", "cbp,l2")
    code, output, _ = regrow(*words, "--out", tmp_path)
    assert code == 0
    assert output.count(": waiting") == 2
    assert not list(tmp_path.iterdir())
    assert regrow(*words, "--out", out)[1].count(": done") == 2


def test_shards_share_a_study_out(here, tmp_path, monkeypatch):
    monkeypatch.setattr("regrow.experiments.estimate.estimate", lambda *_: None)  # which takes its time
    found = []
    for part in ("1/3", "2/3", "3/3"):
        _, output, _ = here("run", "permuted-digits", "--shard", part, "--dry-run", "--out", str(tmp_path))
        found.append(re.findall(r"permuted-digits/(\w{16}) ", output))
    assert [len(part) for part in found] == [9, 8, 8]
    assert len(set().union(*found)) == 25


def test_ctrl_c_stops_and_says_how_to_go_on(tmp_path):
    words = ("run", "permuted-digits", "--scale", "smoke", "--engine", "plain", "--methods", "cbp", "--workers", 1)
    process = begin(*words, "--out", tmp_path)
    limit = time.monotonic() + LIMIT
    while not list(tmp_path.glob("*/*/curve.jsonl")):
        assert time.monotonic() < limit and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, errors) == (130, "")
    assert "Stopped. Every run is kept; to go on: regrow run permuted-digits --scale smoke --engine plain" in output
    assert "plain PyTorch for cbp, as asked" in output
    assert not list(tmp_path.glob("*/*/DONE"))


def test_a_budget_stops_in_time_with_all_saved(tmp_path):
    """Also when there is no time at all, and the same command goes on."""
    words = ("run", "permuted-digits", "--scale", "smoke+tasks=100000", "--methods", "cbp", "--seeds", 1)
    words += ("--out", tmp_path)
    began = time.monotonic()
    code, output, errors = regrow(*words, "--budget", "8s")
    assert (code, errors) == (3, "")
    assert "The time is over: 1 run left, with everything saved; to go on: regrow run permuted-digits" in output
    assert 8 < time.monotonic() - began < 60
    (folder,) = map(RunFolder, folders(tmp_path))
    assert folder.state() == "stopped"
    done, state = folder.resume()
    assert done == folder.length() > 10 and state["position"] >= 0
    assert regrow(*words, "--budget", "0.1s")[0] == 3
    assert folder.length() in (done, done + 1)  # a run that has begun does a piece of work


def test_all_seeds_of_a_method_can_be_one_run(tmp_path):
    words = ("run", "permuted-digits", "--scale", "smoke", "--methods", "cbp,l2", "--engine", "batched")
    code, output, errors = regrow(*words, "--seeds", 3, "--out", tmp_path)
    assert (code, errors) == (0, "")
    assert re.search(r"engine    batched, all seeds of a method side by side, on (cpu|cuda)", output)
    assert re.search(r"Continual backprop +3 ", output)
    assert len(folders(tmp_path)) == 2
    page = (tmp_path / "permuted-digits" / "smoke" / "report.html").read_text()
    assert "--seeds 3 --methods cbp,l2 --engine batched" in page
    assert re.search(r"cbp +0–2 +done +4/4 ", regrow("watch", tmp_path, "--once")[1])
    # One of these seeds again, by another engine: it is newer, and a seed is not to be counted twice.
    assert (
        regrow("run", "permuted-digits", "--scale", "smoke", "--methods", "cbp", "--seeds", 1, "--out", tmp_path)[0]
        == 0
    )
    output = regrow("report", tmp_path)[1]
    assert "Left out, as older and of other settings or another engine: 1 run." in output


def test_a_damaged_run_is_told_and_the_others_go_on(smoke, tmp_path):
    words = ("run", "permuted-digits", "--scale", "smoke", "--methods", "l2", "--workers", 1, "--out", tmp_path)
    for folder in folders(smoke[0]):
        if json.loads((folder / "spec.json").read_text())["method"] == "l2":
            shutil.copytree(folder, tmp_path / "permuted-digits" / folder.name)
    damaged, whole = folders(tmp_path)
    for name in ("DONE", "curve.parquet"):
        (damaged / name).unlink()
        (whole / name).unlink()
    (whole / "checkpoint.safetensors").unlink()
    (damaged / "checkpoint.safetensors").write_bytes(b"torn")
    code, output, _ = regrow(*words)
    assert code == 1
    assert f"{damaged}: StoreError: {damaged / 'checkpoint.safetensors'} is damaged" in output
    assert f"delete the folder {damaged} to run it again" in output
    assert "Failed: 1 run; to try again: regrow run permuted-digits" in output
    assert (whole / "DONE").exists()
    assert re.search(r" failed +0/4 ", regrow("watch", tmp_path, "--once")[1])

    spec = json.loads((damaged / "spec.json").read_text())
    (damaged / "spec.json").write_text(json.dumps(spec | {"seed": 7}))
    code, output, errors = regrow(*words)
    assert code == 2
    assert "Failed: 1 run; to try again: regrow run permuted-digits" in output
    assert errors.startswith(f"error: {damaged / 'spec.json'} does not match its folder")
    code, output, errors = regrow("report", tmp_path)
    assert (code, output) == (2, "")
    assert errors.startswith(f"error: {damaged / 'spec.json'} does not match its folder")


def test_list_shows_studies_and_methods(here):
    code, output, errors = here("list")
    assert (code, errors) == (0, "")
    for word in ("permuted-digits", "smoke", "laptop", "cbp", "replacement_rate=0.0001", "shrink-and-perturb"):
        assert word in output


def test_list_methods_says_what_each_needs(here):
    code, output, errors = here("list", "methods")
    assert (code, errors) == (0, "") and "permuted-digits" not in output
    head = ("method", "kind", "what it does", "needs", "edits", "works", "cost", "state", "reference")
    assert re.search(r"\s+".join(head), output)
    rows = [
        r"cbp +unit +Re-draws .* +units, activations +units, optimizer state +at each step +each act.* +per unit",
        r"fire +task change +Makes .* +units, task changes +weights +at task changes +products of each .* +none",
        r"l2-init +weight +Decays all parameters .* +optimizer +gradients +at each step +each weight, .* +per weight",
    ]
    for row in rows:
        assert re.search(row, output), output
    code, output, errors = here("list", "studies")
    assert (code, errors) == (0, "") and "permuted-digits" in output and "replacement_rate" not in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "permuted-digit"], "There is no study 'permuted-digit'; did you mean 'permuted-digits'?"),
        (["run", "permuted-digits", "--methods", "cpb"], "has no method 'cpb'; did you mean 'cbp'?"),
        (["run", "permuted-digits", "--scale", "lapdog"], "has no scale 'lapdog'; did you mean 'laptop'?"),
        (["run", "permuted-digits", "--scale", "paper"], "has no scale 'paper': the article has no such experiment"),
        (["run", "permuted-digits", "--engine", "fuse"], "There is no engine 'fuse'; did you mean 'fused'?"),
        (["run", "permuted-digits", "--seeds", "five"], "--seeds five is not understood: give a number (5) or a range"),
        (["run", "permuted-digits", "--seeds", "3:3"], "--seeds 3:3 means no seed at all"),
        (["run", "permuted-digits", "--shard", "0/3"], "--shard 0/3 is not understood: give i/n with i from 1 to n"),
        (["run", "permuted-digits", "--shard", "26/26"], "This shard has no run in it"),
        (["run", "permuted-digits", "--workers", "0"], "--workers 0 cannot work: give 1 or more"),
        (["report", "nowhere"], "There are no runs in nowhere"),
        (["watch", "nowhere"], "There are no runs in nowhere"),
    ],
)
def test_mistakes_get_one_clean_message(words, message, here):
    code, output, errors = here(*words)
    assert (code, output) == (2, "")
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert message in errors


def test_an_unknown_option_is_an_error(here):
    code, output, errors = here("run", "permuted-digits", "--sede", "5")
    assert code == 2
    assert "--sede" in output + errors


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["run", "--help"], ["list", "--help"]])
def test_help_loads_nothing_heavy(words):
    call = f"""
import sys
sys.argv = ["regrow", *{words!r}]
from regrow.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
heavy = {{"torch", "numpy", "polars", "matplotlib", "scipy", "numba", "safetensors"}} & set(sys.modules)
print("heavy:", sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("heavy: []\n"), done.stdout + done.stderr


def test_without_the_extra_the_command_says_what_to_install():
    code = "import sys; sys.modules['cyclopts'] = None; import regrow.cli"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT)
    assert result.returncode == 1
    assert result.stderr == "regrow: the command needs the extra 'studies': pip install 'regrow[studies]'\n"


def test_a_report_needs_no_data_that_are_gone(monkeypatch):
    import regrow.studies  # noqa: F401  registers all studies
    from regrow.cli import _origin
    from regrow.experiments.study import study_named

    study = study_named("permuted-mnist")
    assert _origin(study, {"data": "/nowhere/at/all"}) == "/nowhere/at/all, which is not here any more"
    assert _origin(study, {"data": "optical-digits"}).startswith("1,797 images")

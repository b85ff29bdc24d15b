"""The demo, the benchmark and the command line."""

from __future__ import annotations

import builtins
import subprocess
import sys
from typing import Any

import pytest

import lstmcore as lc
from helpers.paths import ROOT
from helpers.peers import require
from lstmcore.__main__ import main
from lstmcore._commands import bench as benchmark
from lstmcore._commands import busy, demo


@pytest.mark.parametrize("seed", [0, 1])
def test_the_demo_learns_and_its_gradients_are_right(seed: int) -> None:
    lines: list[str] = []
    result = demo.main(seed, show=lines.append)
    assert 0.95 <= result.accuracy <= 1
    assert result.gradient_differences["float64"] < 1e-12
    assert result.gradient_differences["float32"] < 2e-5
    assert set(result.step_seconds) == {"reference", "float64", "float32"}
    text = "\n".join(lines)
    for epoch in range(1, 21):
        assert f"epoch {epoch:3d}/20" in text
    assert f"{result.accuracy:.1%} of 370 sequences" in text


def test_the_demo_repeats_itself_by_its_seed() -> None:
    def progress(seed: int, threads: int) -> list[str]:
        lines: list[str] = []
        before = lc.get_num_threads()
        lc.set_num_threads(threads)
        try:
            demo.main(seed, 2, show=lines.append)
        finally:
            lc.set_num_threads(before)
        return [line for line in lines if line.startswith("epoch")]

    assert len(progress(5, 1)) == 2
    assert progress(5, 1) == progress(5, 2)
    assert progress(5, 1) != progress(6, 1)


@pytest.mark.parametrize("with_torch", [True, False])
def test_the_benchmark_measures_every_case(
    with_torch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if with_torch:
        require("torch")
    else:
        real = builtins.__import__

        def without(name: str, *rest: Any, **options: Any) -> Any:
            if name == "torch":
                raise ImportError(name)
            return real(name, *rest, **options)

        monkeypatch.setattr(builtins, "__import__", without)
    lines: list[str] = []
    before = lc.get_num_threads()
    rows = benchmark.main(0.001, show=lines.append)
    assert lc.get_num_threads() == before
    cases = {row[:5] for row in rows}
    assert len(cases) == len(rows) == 16 * len({1, before})
    assert {row.layer for row in rows} == {"LSTM", "GRU"}
    heading, *table = lines[-len(rows) - 1 :]
    assert len(table) == len(rows)
    assert ("PyTorch" in heading) == with_torch
    for row, line in zip(rows, table, strict=True):
        assert row.seconds > 0
        # One LSTM step has 8 H (I + H) operations, one GRU step 6; backward has twice as many.
        per_step = {"LSTM": 8, "GRU": 6}[row.layer] * row.batch_size * 2 * row.hidden_size**2
        calls = 3 if row.training else 1
        assert row.gflops * row.seconds == pytest.approx(64e-9 * calls * per_step)
        assert (row.torch_seconds is not None) == with_torch
        assert len(line) == len(heading)
        assert line.split()[:4] == [
            row.layer, *map(str, (row.batch_size, row.hidden_size, row.threads))
        ]  # fmt: skip


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lstmcore", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_command_line_shows_info() -> None:
    done = run("info")
    assert done.returncode == 0, done.stderr
    assert lc.__version__ in done.stdout
    assert lc.isa() in done.stdout


def test_the_command_line_runs_the_benchmark() -> None:
    done = run("bench", "--seconds", "0.001")
    assert done.returncode == 0, done.stderr
    assert f"lstmcore {lc.__version__}, {lc.isa()}" in done.stdout
    assert "GRU    32  256       1  training" in done.stdout


def test_the_command_line_runs_the_demo() -> None:
    done = run("demo", "--seed", "3", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "epoch   1/1 " in done.stdout
    assert "Test accuracy" in done.stdout


def test_without_a_command_it_helps() -> None:
    done = run()
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m lstmcore [-h] [--version] command")
    assert run("--version").stdout == f"lstmcore {lc.__version__}\n"


def test_the_console_script_is_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 'lstmcore = "lstmcore.__main__:main"\n' in (ROOT / "pyproject.toml").read_text()
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/lstmcore"])
    main()
    assert capsys.readouterr().out.startswith("usage: lstmcore [-h]")


def test_whoever_reads_may_stop() -> None:
    command = [sys.executable, "-m", "lstmcore", "demo", "--epochs", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_a_busy_machine_is_named() -> None:
    assert busy.hint(load=0.0) == []
    (line,) = busy.hint(load=1000.0)
    assert "load 1000.0 on " in line
    assert "LSTMCORE_NUM_THREADS=1" in line
    assert len(busy.hint()) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["juggle"], "juggle"),
        (["demo", "--epochs", "0"], "0 is less than 1"),
        (["demo", "--seed", "-1"], "-1 is less than 0"),
        (["bench", "--seconds", "0"], "0.0 is not above 0"),
        (["bench", "--seconds", "nan"], "nan is not above 0"),
        (["demo", "--seed", "x"], "invalid integer value: 'x'"),
    ],
)
def test_the_command_line_refuses(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err

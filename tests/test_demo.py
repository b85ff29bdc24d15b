"""The demo and the command line."""

from __future__ import annotations

import subprocess
import sys

import pytest

import lstmcore as lc
from lstmcore import demo
from lstmcore.__main__ import main


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


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lstmcore", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_the_command_line_shows_info() -> None:
    done = run("info")
    assert done.returncode == 0, done.stderr
    assert lc.__version__ in done.stdout
    assert lc.isa() in done.stdout


def test_the_command_line_runs_the_demo() -> None:
    done = run("demo", "--seed", "3", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "epoch   1/1 " in done.stdout
    assert "Test accuracy" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["juggle"], "juggle"),
        (["demo", "--epochs", "0"], "0 is less than 1"),
        (["demo", "--seed", "-1"], "-1 is less than 0"),
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

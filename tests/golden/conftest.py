"""Which golden files to run: those of ``--golden DIR`` and those that the project makes itself.

The project's own come from the plain implementation in ``tests/reference``, which shares no code
with the package; they run everywhere.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from reference.cases import CASES, TRACES
from reference.generate import generate

SHARED = Path(__file__).resolve().parents[3] / "shared"
KINDS = {
    "case_file": ("*__*.safetensors", [case.name for case in CASES]),
    "trace_file": ("trace_*.safetensors", [f"trace_{trace.name}" for trace in TRACES]),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given_folder = metafunc.config.getoption("--golden")
    folder = Path(given_folder or SHARED / "golden")
    for fixture, (pattern, own) in KINDS.items():
        if fixture in metafunc.fixturenames:
            given = [pytest.param(f, id=f.stem) for f in sorted(folder.glob(pattern))]
            if given_folder and not any(folder.glob("*.safetensors")):
                raise pytest.UsageError(f"--golden {folder}: no golden files there")
            none = pytest.mark.skip(reason=f"no {pattern} in {folder} (--golden DIR)")
            metafunc.parametrize(
                fixture,
                [
                    *(given or [pytest.param(None, id="given", marks=none)]),
                    *(pytest.param(name, id=f"own-{name}") for name in own),
                ],
                indirect=True,
                scope="module",
            )


def _file(request: pytest.FixtureRequest, made: Path) -> Path:
    if isinstance(request.param, Path):
        return request.param
    (path,) = generate(made, only=[request.param])
    return path


@pytest.fixture(scope="module")
def case_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _file(request, tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def trace_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _file(request, tmp_path_factory.mktemp("golden"))

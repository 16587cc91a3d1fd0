"""Which golden files to run: those of ``--golden DIR`` and those that the project makes itself."""

from __future__ import annotations

from pathlib import Path

import pytest

KINDS = {"case_file": "*__*.safetensors", "trace_file": "trace_*.safetensors"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = Path(metafunc.config.getoption("--golden"))
    for fixture, pattern in KINDS.items():
        if fixture in metafunc.fixturenames:
            files = sorted(folder.glob(pattern))
            absent = pytest.param(
                None, marks=pytest.mark.skip(reason=f"no {pattern} in {folder} (--golden DIR)")
            )
            metafunc.parametrize(
                fixture, files or [absent], ids=[f.stem for f in files] or None, scope="module"
            )

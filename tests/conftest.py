"""Options and fixtures that several test folders share."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        help="folder of golden files (*__*.safetensors, trace_*.safetensors) to reproduce; "
        f"default: {SHARED.name}/golden beside the project, if it is there",
    )


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors are slower on two threads, much slower on two busy ones."""
    torch.set_num_threads(1)

"""Options and fixtures that several test folders share."""

import pytest
import torch
from hypothesis import settings

# Times are not what these tests are about, and a busy machine may take any.
settings.register_profile("open_crema", deadline=None, derandomize=True)
settings.load_profile("open_crema")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden",
        help="folder of golden files (*__*.safetensors, trace_*.safetensors) to reproduce; "
        "default: ../shared/golden, if it is there",
    )


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny tensors are slower on two threads, much slower on two busy ones."""
    torch.set_num_threads(1)

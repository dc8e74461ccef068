import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded_and_poisoned():
    """Seed, and fill memory that ops leave uninitialised with NaN so that it shows in results."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)

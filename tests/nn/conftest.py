"""Every test of a module that takes `backend` runs on all backends that run here, on `device`, as those of the ops."""

from tests.ops.conftest import _seeded_and_poisoned, backend, device

__all__ = ["_seeded_and_poisoned", "backend", "device"]

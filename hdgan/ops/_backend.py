"""Which implementation of an op runs.

Every op names its implementations in a dict; `eager`, plain PyTorch, is the definition of the op and always there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hdgan.errors import ConfigError


class BackendError(ConfigError):
    """A backend was asked for by name that cannot run here."""


def resolve(op: str, backend: str | None, implementations: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """Return the implementation of `op`: the named one, or with None the best that can run.

    Raises:
        BackendError: the named backend does not exist for this op; there is no silent fallback.
    """
    name = "eager" if backend is None else backend
    if name not in implementations:
        usable = ", ".join(sorted(implementations))
        raise BackendError(f"{op}: backend {name!r} is not available in this build; usable: {usable}")
    return implementations[name]

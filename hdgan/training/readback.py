"""Numbers that the host reads after it has gone on working."""

from __future__ import annotations

import torch
from torch import Tensor


class Readback:
    """A tensor on its way to the host, which waits for it only when it reads it.

    Args:
        values: on any device. What is queued after this call may run before the copy is read.
    """

    def __init__(self, values: Tensor) -> None:
        self._host = values.to("cpu", non_blocking=True)  # into memory that PyTorch pins
        self._copied: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            # Blocking: the thread sleeps while it waits, and leaves its core to the data workers.
            self._copied = torch.cuda.Event(blocking=True)
            self._copied.record(torch.cuda.current_stream(values.device))

    def tolist(self) -> list[float]:
        """The values; waits until they have arrived, and for nothing that was queued later."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host.tolist()

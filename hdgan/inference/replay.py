"""Images of inputs of one shape from a CUDA graph: one launch for the kernels of all layers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

from hdgan.devices import is_out_of_memory
from hdgan.models.cuda_graph import CaptureError, capture
from hdgan.ops._backend import forced_backend
from hdgan.ops._torch_internals import has_hooks

Given = Sequence[Tensor | None]


class Replay:
    """Calls a function of tensors, from the second call in a row with the same shapes on by a CUDA graph.

    There is one graph at a time, because each keeps the memory of all layers. It is made again when a weight was
    changed or replaced. A model with hooks runs without it: a replay would not call them. Where the memory does not
    suffice, or the model waits for the GPU, a warning says so and the model runs as it is.

    Args:
        model: the networks that the function runs.
        device: a GPU.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._last: Hashable = None
        self._captured: Hashable = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: list[Tensor | None] = []
        self._result: Tensor | None = None
        self._memory: list[Tensor] = []
        """That of the weights in the graph: held, so that no other weight can come to lie at its address."""
        self._impossible = False

    def __call__(self, function: Callable[..., Tensor], given: Given, *options: Hashable) -> Tensor:
        """function(*given). What it depends on besides the model is in `options`."""
        if self._impossible or any(map(has_hooks, self._model.modules())):
            self._last = None
            return function(*given)
        key = self._key(given, options)
        if key not in (self._captured, self._last):
            self._last = key
            return function(*given)
        # Tensors that are made in inference mode could not be written to outside of it.
        with torch.inference_mode(False), torch.no_grad():
            if key == self._captured or self._capture(function, given, key):
                return self._replayed(given)
        return function(*given)

    def _replayed(self, given: Given) -> Tensor:
        for static, new in zip(self._given, given, strict=True):
            if static is not None and new is not None:
                static.copy_(new)
        assert self._graph is not None
        assert self._result is not None
        self._graph.replay()
        return self._result.clone()

    def _key(self, given: Given, options: tuple[Hashable, ...]) -> Hashable:
        shapes = tuple(None if t is None else (t.shape, t.stride(), t.dtype) for t in given)
        # A tensor of inference mode counts no versions. Its changes reach the graph, which reads its memory.
        weights = tuple((t.data_ptr(), None if t.is_inference() else t._version) for t in self._weights())
        return shapes, options, forced_backend(), weights

    def _weights(self) -> list[Tensor]:
        return [*self._model.parameters(), *self._model.buffers()]

    def _capture(self, function: Callable[..., Tensor], given: Given, key: Hashable) -> bool:
        """Make the graph for these inputs. Returns whether that was possible."""
        self._captured = self._graph = self._result = None  # its memory first
        self._given = [None if t is None else t.clone() for t in given]
        try:
            self._graph, self._result = capture(lambda: function(*self._given), self._model, self._device)
        except RuntimeError as error:
            if not (isinstance(error, CaptureError) or is_out_of_memory(error)):
                raise
            self._give_up(str(error).splitlines()[0])
            return False
        self._captured = key
        self._memory = [t.detach() for t in self._weights()]
        return True

    def _give_up(self, reason: str) -> None:
        self._impossible = True
        self._given = []
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # what the attempt took, from a pool that nothing else uses
        warnings.warn(
            f"no CUDA graph can hold the images of this model ({reason}), so it runs without one; cuda_graphs=False "
            "does not try",
            stacklevel=2,
        )

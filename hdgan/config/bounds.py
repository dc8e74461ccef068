"""Types of options with their bounds, which apply to files, command lines and callers in Python.

Upper bounds are far above what is useful. They prevent a number in a foreign file, or a typing error, from building a
million layers or starting a million threads.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Interval

Count = Annotated[int, Interval(ge=0, le=10**9)]
Positive = Annotated[int, Interval(ge=1, le=10**9)]
"""A count of at least one."""
Seed = Annotated[int, Interval(ge=0, le=2**63 - 1)]
Share = Annotated[float, Interval(ge=0, le=1)]
Weight = Annotated[float, Interval(ge=0, le=10**9)]
"""Of a loss; 0 leaves it out."""
LearningRate = Annotated[float, Interval(gt=0, le=10**9)]
Threads = Annotated[int, Interval(ge=1, le=1024)]
Workers = Annotated[int, Interval(ge=0, le=256)]
BatchSize = Annotated[int, Interval(ge=1, le=65536)]
"""Images of a step."""
Side = Annotated[int, Interval(ge=1, le=65536)]
"""Width or height in pixels."""
Shift = Annotated[int, Interval(ge=0, le=64)]
"""Largest shift of a photo in pixels; all shifts up to it are tried."""
Label = Annotated[int, Interval(ge=-(2**31), le=2**31 - 1)]
Labels = Annotated[int, Interval(ge=0, le=65536)]
"""How many classes."""
Divisor = Annotated[int, Interval(ge=1, le=2**31 - 1)]
"""Of instance ids."""
Channels = Annotated[int, Interval(ge=1, le=1024)]
"""Of an image."""
Depth = Literal["uint8", "uint16", "float32"]
"""NumPy's name for the type of an image's numbers."""
Precision = Literal["float32", "bfloat16", "float16"]
"""What the networks of a trained model compute in: float32, or one of the others by autocast."""
Features = Annotated[int, Interval(ge=0, le=1024)]
"""Channels of an encoder's features."""
Noise = Annotated[float, Interval(ge=0, le=100)]
"""Standard deviation relative to that of features."""
Width = Annotated[int, Interval(ge=1, le=4096)]
"""Channels of a network's first convolution."""
Blocks = Annotated[int, Interval(ge=0, le=256)]
"""Residual blocks, one after the other."""
Halvings = Annotated[int, Interval(ge=1, le=12)]
"""Convolutions of stride 2: inputs are padded to a multiple of 2^12 = 4096 pixels at most."""
Doublings = Annotated[int, Interval(ge=0, le=12)]
"""Parts of a generator that each double its resolution."""
Scales = Annotated[int, Interval(ge=1, le=12)]
"""Discriminators, each at half the resolution of the one before."""
Modules = Annotated[int, Interval(ge=1, le=16)]
"""Of CRN, each at twice the resolution of the one before."""
Variants = Annotated[int, Interval(ge=1, le=256)]
"""Images of one input, or repetitions with another seed."""
VariantsOnDisk = Annotated[int, Interval(ge=1, le=10**5)]
"""Images of one input that a command writes. All names are listed before the first image is made."""
Port = Annotated[int, Interval(ge=0, le=65535)]
Factor = Annotated[float, Interval(gt=0, le=64)]
"""Multiplies the channels of all layers."""

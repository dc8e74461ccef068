"""The fused ops in networks that somebody else wrote.

import hdgan
print(hdgan.accelerate(network, example))
"""

from hdgan.acceleration.accelerating import accelerate, undo
from hdgan.acceleration.parity import Parity, ParityError
from hdgan.acceleration.report import NotReplaced, Replaced, Report

__all__ = ["NotReplaced", "Parity", "ParityError", "Replaced", "Report", "accelerate", "undo"]

"""The fused ops in networks that somebody else wrote.

import hdgan
print(hdgan.accelerate(network, example))
"""

from hdgan.acceleration.accelerating import accelerate, undo
from hdgan.acceleration.parity import Comparison, ParityError
from hdgan.acceleration.report import Kept, Replaced, Report

__all__ = ["Comparison", "Kept", "ParityError", "Replaced", "Report", "accelerate", "undo"]

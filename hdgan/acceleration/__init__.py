"""The fused ops in networks that somebody else wrote.

import hdgan
print(hdgan.accelerate(network, example))
"""

from hdgan.acceleration.accelerating import accelerate, undo
from hdgan.acceleration.parity import Parity, ParityError
from hdgan.acceleration.report import Found, Report

__all__ = ["Found", "Parity", "ParityError", "Report", "accelerate", "undo"]

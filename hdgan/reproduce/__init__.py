"""The paper's comparisons and ablations on the built-in scenes: `hdgan reproduce`.

plan says what is trained, run trains and scores it in processes of their own (workers, job), evidence writes the page.
"""

from hdgan.reproduce.plan import ROWS, SCALES, TABLES
from hdgan.reproduce.run import Outcome, reproduce

__all__ = ["ROWS", "SCALES", "TABLES", "Outcome", "reproduce"]

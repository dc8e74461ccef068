"""Styles of instances (paper, section 3.4): E's features, their clusters, and the choice among them.

model = hdgan.load(run)
styles = model.bank.sample(model.instances(label, ids), seed=7)
picture = model(label, ids, styles=styles.with_style(5001, model.bank.style(5, 2)))
"""

from hdgan.styles.bank import Cluster, Example, StyleBank
from hdgan.styles.sample import Style, Styles

__all__ = ["Cluster", "Example", "Style", "StyleBank", "Styles"]

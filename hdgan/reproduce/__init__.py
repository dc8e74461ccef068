"""The paper's comparisons and ablations on the built-in scenes: `hdgan reproduce`.

plan says what is trained, jobs which commands do it, run starts these as processes; publish collects the results, and
evidence writes the page. `hdgan.reproduce.run.reproduce` is the command in Python. This module imports nothing.
"""

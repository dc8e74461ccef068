"""The paper's comparisons and ablations on the built-in scenes: `hdgan reproduce`.

plan says what is trained, scales at what size, and perceptual with which network in the loss. jobs says which commands
do it, and run starts these as processes. publish collects the results, and evidence writes the page.
`hdgan.reproduce.run.reproduce` is the command in Python. This module imports nothing.
"""

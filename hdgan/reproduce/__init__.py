"""The paper's comparisons and ablations on the built-in scenes: `hdgan reproduce`.

plan says what is trained; run has it trained and scored in processes of their own (workers, job); evidence writes the
page. `hdgan.reproduce.run.reproduce` is the command in Python. Nothing is imported here: each job is a new process.
"""

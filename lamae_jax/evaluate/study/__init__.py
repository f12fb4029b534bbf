"""Questions that take several models: every system of the paper, few labels, few recordings.

Each is made of cells (a model, a task, a mode) that are kept as they are done, so that a study goes on where it was stopped.
"""

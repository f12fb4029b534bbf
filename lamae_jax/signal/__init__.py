"""From a recording in any lead order, unit and rate to the one form the model reads, and ECG paper to look at it.

numpy and scipy alone; matplotlib only where something is drawn.
"""

"""Using a trained model: embed, reconstruct and predict in Python, whole archives from the command line, export.

Imports signal, data, model, artifact and evaluate; nothing in those imports this room.
"""

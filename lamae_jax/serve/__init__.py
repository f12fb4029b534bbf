"""Using a trained model: embed, reconstruct, predict and explain; whole archives from the command line; export.

Imports signal, data, model, train, artifact and evaluate; nothing in those imports this room.
"""

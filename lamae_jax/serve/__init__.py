"""Using a trained model: explain what it looks at and what it stands.

Imports signal, data, model, artifact and evaluate; nothing in those imports this room.
"""

"""What a trained model is worth: frozen features, probes on them, and the statistics that judge them.

Imports signal, data, model, train and artifact; nothing in those imports this room.
"""

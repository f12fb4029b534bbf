"""The model folder: parameters, configuration, signal contract and provenance, written whole, hashed, and loaded strictly.

It is readable without the run that made it: safetensors, JSON and one .npy, no pickle.
"""

"""From recordings on disk to batches: sources, prepare, store, labels, splits, loader.

Flow: source -> prepare -> store -> loader. Nothing here calls jax; workers of prepare import numpy and scipy only.
"""

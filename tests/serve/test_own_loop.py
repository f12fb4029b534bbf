"""The network and its presets in somebody else's training loop: as docs/using.md says."""

import numpy as np


def test_build_and_train_in_a_loop_of_ones_own() -> None:
    import jax
    import jax.numpy as jnp
    import optax

    from lamae_jax import LAMAE, presets
    from lamae_jax.model.losses import counted_patches, squared_error
    from lamae_jax.model.masking import MaskConfig, draw_masks, hidden_patches

    config = presets.preset("nano", samples=1000, patch=100, width=16, encoder_depth=1, latent_depth=1)
    model, masking, leads = LAMAE(config), MaskConfig(alpha_E=0.75), jnp.arange(12)

    def loss(params, x, available, key):
        masks = draw_masks(key, available, config.patches, masking)
        predicted = model.apply({"params": params}, x, masks, available, leads, method="reconstruct")
        counted = counted_patches(hidden_patches(masks, 12, config.patches), available)
        return squared_error(predicted, x.reshape(predicted.shape), counted) / counted.sum()

    @jax.jit
    def step(params, state, x, available, key):
        value, gradient = jax.value_and_grad(loss)(params, x, available, key)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    optimiser = optax.adamw(1e-2)
    x, available = ecgs(), jnp.ones((8, 12), bool)  # [B, L, S], in units of each record's RMS
    masks = draw_masks(jax.random.key(0), available, config.patches, masking)
    init = jax.jit(lambda key: model.init(key, x, masks, available, leads, method="reconstruct"))
    params = init(jax.random.key(0))["params"]
    state, losses = optimiser.init(params), []
    for number in range(30):
        params, state, value = step(params, state, x, available, jax.random.key(number))
        losses.append(float(value))
    assert losses[-1] < 0.9 * losses[0]


def ecgs() -> np.ndarray:
    """Eight slow waves in twelve leads, [8, 12, 1000], of RMS 1."""
    t, rng = np.arange(1000) / 100, np.random.default_rng(0)
    x = np.sin(2 * np.pi * t * 0.3 + rng.random((8, 1, 1)) * 6 + np.arange(12)[:, None] / 4)
    return (x / x.std(axis=(1, 2), keepdims=True)).astype(np.float32)

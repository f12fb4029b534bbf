"""The model does what DESIGN says of it: what reaches what, and what has no influence at all."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lamae_jax.errors import UserError
from lamae_jax.model import lamae
from lamae_jax.model.lamae import LAMAE, Params, init_params, patches_of
from lamae_jax.model.layers import inverse_of, select_rows
from lamae_jax.model.losses import counted_patches, squared_error, targets, undo_targets
from lamae_jax.model.masking import MaskConfig, Masks, draw_masks, hidden_patches
from lamae_jax.model.presets import PRESETS, ModelConfig, preset
from lamae_jax.model.readouts import readout

SMALL = ModelConfig(
    width=16, heads=2, encoder_depth=1, latent_depth=2, decoder_width=16, decoder_heads=2, decoder_depth=1,
    samples=100, patch=10,
)  # fmt: skip
reconstruct = jax.jit(lamae.reconstruct, static_argnums=0)
encode = jax.jit(lamae.encode, static_argnums=0)
READS = ("tokens_and_cls", "tokens", "cls_only")
B, L, T = 3, 12, 10
X = jax.random.normal(jax.random.key(1), (B, L, 100))
ALL = jnp.ones((B, L), bool)


@functools.cache
def params_of(config: ModelConfig) -> Params:
    """Parameters with every array away from its initial zeros, so that no path is dead by chance."""
    rng, shapes = np.random.default_rng(0), jax.eval_shape(lambda: init_params(config, jax.random.key(0)))

    def drawn(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = path[-1].key
        spread = 0.1 + (leaf.shape[-2] ** -0.5 if name == "kernel" else 0)
        return jnp.asarray(rng.normal(0, spread, leaf.shape) + (name == "scale"), jnp.float32)

    with jax.ensure_compile_time_eval():  # a test may ask for them first while it is traced
        return jax.tree_util.tree_map_with_path(drawn, shapes)


def masks_of(config: MaskConfig | None = None, available: jax.Array = ALL) -> Masks:
    return draw_masks(jax.random.key(2), available, T, config or MaskConfig())


def loss_of(config: ModelConfig, params: Params, x: jax.Array, masks: Masks, available: jax.Array = ALL) -> jax.Array:
    counted = counted_patches(hidden_patches(masks, L, T), available)
    predicted = reconstruct(config, params, x, masks, available)
    return squared_error(predicted, targets(patches_of(x, 10), "raw"), counted) / counted.sum()


def variants() -> list[ModelConfig]:
    forms = [dataclasses.replace(SMALL, decoder_reads=reads) for reads in READS]
    forms += [dataclasses.replace(SMALL, positions=positions) for positions in ("sincos", "both")]
    forms += [dataclasses.replace(SMALL, qk_norm=True, remat=True), dataclasses.replace(SMALL, latent_depth=0)]
    return [*forms, dataclasses.replace(SMALL, dtype="bfloat16")]


@pytest.mark.parametrize("config", variants(), ids=str)
def test_reconstructs_every_patch_and_learns_through_every_parameter(config: ModelConfig) -> None:
    masks = masks_of(MaskConfig(alpha_LA=0.1 if config.latent_depth else 0.0))
    params = params_of(config)
    loss, gradient = jax.jit(jax.value_and_grad(lambda p: loss_of(config, p, X, masks)))(params)
    assert np.isfinite(loss)
    silent = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if not np.asarray(leaf).any()
    ]
    assert silent == []


def test_hidden_samples_change_nothing_but_the_loss() -> None:
    masks = masks_of(MaskConfig(hidden_leads=2))
    hidden = jnp.repeat(hidden_patches(masks, L, T), 10, axis=-1)
    other = jnp.where(hidden, X + 100, X)
    same, changed = (reconstruct(SMALL, params_of(SMALL), x, masks, ALL) for x in (X, other))
    np.testing.assert_array_equal(same, changed)
    assert loss_of(SMALL, params_of(SMALL), other, masks) > 100 * loss_of(SMALL, params_of(SMALL), X, masks)


def test_every_visible_patch_reaches_the_reconstruction() -> None:
    masks = masks_of(MaskConfig(alpha_LA=0.0))
    out = jax.jit(jax.grad(lambda x: reconstruct(SMALL, params_of(SMALL), x, masks, ALL)[0].std()))(X)
    reached = np.asarray(patches_of(out, 10)[0] != 0).any(axis=-1)
    np.testing.assert_array_equal(reached, ~np.asarray(hidden_patches(masks, L, T))[0])
    assert not np.asarray(out[1:]).any()  # records don't see each other


def test_visible_patches_are_not_in_the_loss_even_when_dropped_by_the_latent_mask() -> None:
    masks = masks_of(MaskConfig(alpha_LA=0.5))
    counted = counted_patches(hidden_patches(masks, L, T), ALL)
    assert counted.sum() == B * L * 8  # floor(.75 * 10 + .5) of 10 are hidden, whatever M_LA drops


@pytest.mark.parametrize("hidden_leads", [0, 3])
@pytest.mark.parametrize(
    "config", [SMALL, dataclasses.replace(SMALL, decoder_reads="cls_only")], ids=lambda c: c.decoder_reads
)
def test_an_unavailable_lead_has_no_influence(config: ModelConfig, hidden_leads: int) -> None:
    available = ALL.at[:, 4].set(False)
    masks = masks_of(MaskConfig(hidden_leads=hidden_leads), available)
    params = params_of(config)
    other = X.at[:, 4].set(7.0)
    before, after = (reconstruct(config, params, x, masks, available) for x in (X, other))
    keep = np.arange(L) != 4
    np.testing.assert_array_equal(before[:, keep], after[:, keep])
    gradient = jax.jit(jax.grad(lambda x: loss_of(config, params, x, masks, available)))(X)
    assert not np.asarray(gradient[:, 4]).any()
    for name in ("la_cls", "la_mean", "encoder_mean", "encoder_concat"):
        a, b = (readout(encode(config, params, x, available), name, available) for x in (X, other))
        np.testing.assert_array_equal(a, b)


def test_permuting_signals_and_lead_ids_together_leaves_cls_unchanged() -> None:
    order = np.random.default_rng(0).permutation(L)
    model, params = LAMAE(SMALL), {"params": params_of(SMALL)}
    apply = jax.jit(functools.partial(model.apply, method="tokens"))
    straight = apply(params, X, ALL, jnp.arange(L))
    mixed = apply(params, X[:, order], ALL, jnp.asarray(order))
    np.testing.assert_allclose(straight.la_cls, mixed.la_cls, atol=2e-5)
    np.testing.assert_allclose(straight.la_leads[:, order], mixed.la_leads, atol=2e-5)
    wrong = apply(params, X[:, order], ALL, jnp.arange(L))
    assert np.abs(wrong.la_cls - straight.la_cls).max() > 1e-2


@pytest.mark.parametrize("reads, learns", [("tokens_and_cls", True), ("cls_only", True), ("tokens", False)])
def test_gradient_of_the_loss_with_respect_to_la_s_cls_output(reads: str, learns: bool) -> None:
    """With `tokens` D never reads CLS, so it learns only through LA's earlier layers (and never with one)."""
    config = dataclasses.replace(SMALL, decoder_reads=reads)
    masks, params = masks_of(), params_of(config)

    def loss(shift: jax.Array) -> jax.Array:
        counted = counted_patches(hidden_patches(masks, L, T), ALL)
        import flax.linen as nn

        def add(next_fun, args, kwargs, context):  # noqa: ANN001, ANN202
            out = next_fun(*args, **kwargs)
            if type(context.module).__name__ == "LatentAttention" and context.method_name == "__call__":
                return (out[0] + shift, *out[1:])
            return out

        with nn.intercept_methods(add):
            predicted = lamae.reconstruct(config, params, X, masks, ALL)
        return squared_error(predicted, patches_of(X, 10), counted) / counted.sum()

    gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.zeros((B, 16))))
    assert gradient.any() == learns


@pytest.mark.parametrize("leads", [1, 2, 12])
def test_any_number_of_leads(leads: int) -> None:
    config = dataclasses.replace(SMALL, leads=leads)
    x, available = X[:, :leads], ALL[:, :leads]
    masks = draw_masks(jax.random.key(2), available, T, MaskConfig())
    assert reconstruct(config, params_of(config), x, masks, available).shape == (B, leads, T, 10)
    assert readout(encode(config, params_of(config), x, available), "la_cls", available).shape == (B, 16)


def test_a_subset_of_leads_gives_what_marking_the_others_unavailable_gives() -> None:
    ids = jnp.array([1, 6, 8])
    model, params = LAMAE(SMALL), {"params": params_of(SMALL)}
    apply = jax.jit(functools.partial(model.apply, method="tokens"))
    few = apply(params, X[:, ids], ALL[:, :3], ids)
    available = jnp.zeros((B, L), bool).at[:, ids].set(True)
    marked = apply(params, X, available, jnp.arange(L))
    np.testing.assert_allclose(few.la_cls, marked.la_cls, atol=2e-5)


def test_a_hidden_lead_sends_its_cls_alone() -> None:
    """What E says of a hidden lead depends on which lead it is, and on no sample of it."""
    masks = masks_of(MaskConfig(hidden_leads=3))
    hidden = np.asarray(hidden_patches(masks, L, T)).all(axis=-1)
    out = np.asarray(reconstruct(SMALL, params_of(SMALL), X, masks, ALL))
    assert (hidden.sum(axis=1) == 3).all()
    leads = np.flatnonzero(hidden[0])
    assert np.abs(out[0, leads[0]] - out[0, leads[1]]).max() > 1e-3


def test_zeros_give_finite_loss_and_gradients_for_both_targets() -> None:
    masks = masks_of()
    for kind in ("raw", "normalised"):

        def loss(params: Params, kind: str = kind) -> jax.Array:
            wanted = targets(jnp.zeros((B, L, T, 10)), kind)
            counted = counted_patches(hidden_patches(masks, L, T), ALL)
            return squared_error(reconstruct(SMALL, params, 0 * X, masks, ALL), wanted, counted)

        value, gradient = jax.jit(jax.value_and_grad(loss))(params_of(SMALL))
        assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_undoing_a_target_gives_the_patches_back() -> None:
    patches = patches_of(X, 10) * 3 + 1
    for kind in ("raw", "normalised"):
        np.testing.assert_allclose(undo_targets(targets(patches, kind), patches, kind), patches, atol=1e-5)


def test_loss_is_the_paper_s_equation_2_over_t_p() -> None:
    masks = masks_of()
    hidden = np.asarray(hidden_patches(masks, L, T))
    predicted = np.asarray(reconstruct(SMALL, params_of(SMALL), X, masks, ALL))
    wanted = np.asarray(patches_of(X, 10))
    alpha = hidden[0, 0].sum() / T
    per_record = [(np.square(wanted[b] - predicted[b]).sum(-1) * hidden[b]).sum() / alpha / L for b in range(B)]
    np.testing.assert_allclose(loss_of(SMALL, params_of(SMALL), X, masks), np.mean(per_record) / (T * 10), rtol=1e-5)


def test_selection_and_its_gradient_are_numpy_s() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 3))
    index = jnp.array([[4, 0, 5, 2], [1, 5, 3, 0]])  # 5 = nowhere: zeros
    inverse = inverse_of(index, 5)[:, :5]
    out = select_rows(x, index, inverse)
    padded = np.concatenate([x, np.zeros((2, 1, 3))], axis=1)
    np.testing.assert_array_equal(out, np.take_along_axis(padded, np.asarray(index)[..., None], axis=1))
    weights = jax.random.normal(jax.random.key(1), out.shape)
    ours = jax.grad(lambda x: (select_rows(x, index, inverse) * weights).sum())(x)

    def plain(x: jax.Array) -> jax.Array:
        full = jnp.concatenate([x, jnp.zeros((2, 1, 3))], axis=1)
        return (jnp.take_along_axis(full, index[..., None], axis=1) * weights).sum()

    np.testing.assert_allclose(ours, jax.grad(plain)(x), atol=1e-6)


def test_rotary_positions_depend_on_time_differences_only() -> None:
    """With rotary positions alone, moving every visible patch by the same time leaves lead tokens' relations unchanged."""
    from lamae_jax.model.layers import rotate, rotation

    q, k = jax.random.normal(jax.random.key(0), (2, 1, 4, 16))  # [H, N, Dh]
    times = jnp.array([0, 3, 7, 20])
    now = rotate(q, rotation(times, 16)) @ jnp.swapaxes(rotate(k, rotation(times, 16)), -1, -2)
    later = rotate(q, rotation(times + 9, 16)) @ jnp.swapaxes(rotate(k, rotation(times + 9, 16)), -1, -2)
    np.testing.assert_allclose(now, later, atol=1e-4)
    np.testing.assert_array_equal(rotate(q, rotation(times, 16))[..., 8:], q[..., 8:])  # half carry content


@pytest.mark.parametrize(
    "name, millions", [("nano", 0.31), ("tiny", 4.4), ("small", 23), ("base", 121), ("large", 316)]
)
def test_presets_have_the_sizes_of_the_table(name: str, millions: float) -> None:
    config = preset(name)
    shapes = jax.eval_shape(lambda: init_params(config, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == pytest.approx(millions * 1e6, rel=0.06)
    assert config.patches == 50


def test_preset_rates() -> None:
    assert PRESETS["nano"].learning_rate(64) == 1.5e-3
    assert PRESETS["base"].learning_rate(1024) == pytest.approx(6e-4)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"patch": 33}, "model.patch=33: does not divide the 100 samples"),
        ({"patch": 100}, "model.patch=100: leaves one patch"),
        ({"heads": 3}, "model.heads=3: does not divide model.width=16"),
        ({"heads": 8}, "rotary positions need a multiple of 4"),
        ({"decoder_heads": 5}, "model.decoder_heads=5"),
        ({"latent_depth": -1}, "model.latent_depth=-1"),
        ({"encoder_depth": 0}, "model.encoder_depth=0: must be at least 1"),
        ({"decoder_reads": "all"}, "model.decoder_reads=all: must be one of tokens_and_cls, tokens, cls_only"),
        ({"positions": "learned"}, "model.positions=learned"),
        ({"dtype": "float16"}, "dtype=float16"),
    ],
)
def test_impossible_models_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]


def test_readouts_that_never_learned_are_refused() -> None:
    with pytest.raises(UserError, match="readout=la_cls: this model has no latent attention"):
        dataclasses.replace(SMALL, latent_depth=0).check_readout("la_cls")
    with pytest.raises(UserError, match="CLS token never learned"):
        dataclasses.replace(SMALL, latent_depth=1, decoder_reads="tokens").check_readout("la_cls")
    with pytest.raises(UserError, match="readout=cls: must be"):
        SMALL.check_readout("cls")

"""M_E and M_LA: sizes, modes, unavailable and hidden leads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lamae_jax.errors import UserError
from lamae_jax.model import masking
from lamae_jax.model.lamae import places
from lamae_jax.model.layers import inverse_of
from lamae_jax.model.masking import (
    MaskConfig,
    Masks,
    draw_masks,
    draw_masks_by_record,
    hidden_patches,
    nothing_hidden,
)

T = 50
ALL = jnp.ones((6, 12), bool)


def draw(config: MaskConfig, available: jax.Array = ALL, seed: int = 0, patches: int = T):  # noqa: ANN201
    return draw_masks(jax.random.key(seed), available, patches, config)


def visible_of(config: MaskConfig, **kwargs: object) -> np.ndarray:
    """[B, L, T] bool, True where shown."""
    return ~np.asarray(hidden_patches(draw(config, **kwargs), 12, T))  # type: ignore[arg-type]


@pytest.mark.parametrize("alpha, kept", [(0.75, 12), (0.5, 25), (0.99, 1), (0.02, 49)])
@pytest.mark.parametrize("mode", ["independent", "shared", "block"])
def test_each_lead_shows_exactly_k_patches(alpha: float, kept: int, mode: str) -> None:
    config = MaskConfig(alpha_E=alpha, mode=mode)
    if alpha == 0.99:
        with pytest.raises(UserError, match="shows no patch"):
            draw(config)
        return
    assert (visible_of(config).sum(axis=-1) == kept).all()


def test_independent_leads_and_records_draw_their_own() -> None:
    visible = visible_of(MaskConfig())
    sets = {row.tobytes() for row in visible.reshape(-1, T)}
    assert len(sets) == 6 * 12
    assert {row.tobytes() for row in visible_of(MaskConfig(), seed=1).reshape(-1, T)}.isdisjoint(sets)


def test_shared_shows_one_set_of_times_in_all_leads_of_a_record() -> None:
    visible = visible_of(MaskConfig(mode="shared"))
    assert (visible == visible[:, :1]).all()
    assert len({row.tobytes() for row in visible[:, 0]}) == 6


def test_block_hides_runs() -> None:
    """38 hidden of 50 in runs of 5: seven runs and a remainder of 3, so every hidden run is 3, or 5, or sums of these long."""
    visible = visible_of(MaskConfig(mode="block", block=5))
    for row in visible.reshape(-1, T):
        edges = np.flatnonzero(np.diff(np.concatenate([[1], row.astype(int), [1]])))
        runs = edges[1::2] - edges[::2]
        assert runs.sum() == 38
        assert all(run % 5 in (0, 3) for run in runs)
        assert sum(run % 5 == 3 for run in runs) == 1


def test_every_patch_is_hidden_about_equally_often() -> None:
    masks = draw_masks(jax.random.key(0), jnp.ones((400, 12), bool), T, MaskConfig())
    share = np.asarray(hidden_patches(masks, 12, T)).mean(axis=(0, 1))
    assert np.abs(share - 0.76).max() < 0.04


def test_hidden_leads_show_nothing_and_are_available_ones() -> None:
    available = ALL.at[0, 3:].set(False).at[1, :].set(False).at[1, 7].set(True)
    visible = visible_of(MaskConfig(hidden_leads=4), available=available)
    shown = visible.any(axis=-1)
    assert (shown.sum(axis=1) == 8).all()
    hidden_and_there = (~shown & np.asarray(available)).sum(axis=1)
    assert hidden_and_there.tolist() == [2, 0, 4, 4, 4, 4]  # one available lead always stays visible
    assert (shown & np.asarray(available)).any(axis=1).all()


def test_hidden_leads_are_drawn_evenly() -> None:
    masks = draw_masks(jax.random.key(0), jnp.ones((2000, 12), bool), T, MaskConfig(hidden_leads=3))
    share = np.asarray(hidden_patches(masks, 12, T)).all(axis=-1).mean(axis=0)
    assert np.abs(share - 0.25).max() < 0.04


def test_latent_mask_keeps_m_tokens_and_drops_unavailable_leads_first() -> None:
    available = ALL.at[0, :2].set(False)
    masks = draw(MaskConfig(alpha_LA=0.25), available)
    kept = np.asarray(masks.kept)
    assert kept.shape == (6, 144 - 36)
    assert (np.diff(kept, axis=1) > 0).all()  # distinct, ascending
    lost = set(range(144)) - set(kept[0].tolist())
    assert lost >= set(range(24))  # all tokens of the two missing leads went first


def test_latent_ratio_zero_keeps_all() -> None:
    assert np.asarray(draw(MaskConfig(alpha_LA=0)).kept).tolist() == [list(range(144))] * 6


def test_latent_mask_counts_visible_leads_only() -> None:
    assert draw(MaskConfig(alpha_LA=0.1, hidden_leads=4)).kept.shape == (6, 96 - 10)


def test_masks_are_the_same_on_one_and_eight_devices() -> None:
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    config, available = MaskConfig(hidden_leads=2), jnp.ones((16, 12), bool)

    def one(a: jax.Array):  # noqa: ANN202
        return draw_masks(jax.random.key(3), a, T, config)

    alone = jax.jit(one)(available)
    split = jax.jit(one, out_shardings=sharding)(jax.device_put(available, sharding))
    jax.tree.map(np.testing.assert_array_equal, alone, split)


def test_nothing_hidden_hides_nothing() -> None:
    assert not np.asarray(hidden_patches(nothing_hidden(2, 12, T), 12, T)).any()


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"alpha_E": 0.0}, "mask.alpha_E=0"),
        ({"alpha_E": 1.0}, "mask.alpha_E=1"),
        ({"alpha_E": float("nan")}, "mask.alpha_E=nan"),
        ({"alpha_LA": 1.0}, "mask.alpha_LA=1"),
        ({"alpha_LA": -0.1}, "mask.alpha_LA=-0.1"),
        ({"mode": "diagonal"}, "mask.mode=diagonal: must be one of independent, shared, block"),
        ({"block": 0}, "mask.block=0"),
        ({"hidden_leads": -1}, "mask.hidden_leads=-1"),
    ],
)
def test_impossible_masks_are_refused(fields: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        MaskConfig(**fields)  # type: ignore[arg-type]


def test_as_many_hidden_leads_as_leads_are_refused() -> None:
    with pytest.raises(UserError, match="mask.hidden_leads=12: must be below the number of leads, 12"):
        draw(MaskConfig(hidden_leads=12))


@pytest.mark.parametrize("mode", ["independent", "shared", "block"])
def test_masks_by_record_depend_on_the_record_and_not_on_its_batch(mode: str) -> None:
    """Validation draws these, so that its figure is the same for any batch size and number of devices."""
    config = MaskConfig(mode=mode, hidden_leads=2)
    available = jnp.asarray(np.random.default_rng(0).random((6, 12)) < 0.8).at[:, 0].set(True)
    whole = draw_masks_by_record(jax.random.key(7), jnp.arange(6), available, T, config)
    part = draw_masks_by_record(jax.random.key(7), jnp.arange(4, 6), available[4:], T, config)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        assert np.array_equal(one[4:], other)
    assert not np.array_equal(whole.kept[0], whole.kept[1])


def test_the_example_in_the_text_is_what_the_code_computes() -> None:
    masks = Masks(leads=jnp.array([[0, 1]]), visible=jnp.array([[[0, 3], [1, 2]]]), kept=jnp.array([[0, 2, 3]]))
    drawn = draw(MaskConfig(alpha_E=0.5, alpha_LA=0.25), ALL[:1, :2], patches=4)
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, masks)
    place = places(masks, 4)
    kept_place = jnp.take_along_axis(place, masks.kept, axis=1)
    computed = {
        "leads": masks.leads, "visible": masks.visible, "kept": masks.kept,
        "hidden_patches": hidden_patches(masks, 2, 4).astype(int), "place": place, "kept_place": kept_place,
        "source": inverse_of(kept_place, 8),
    }  # fmt: skip
    lines = [line.split() for line in (masking.__doc__ or "").splitlines()]
    for name, array in computed.items():
        due = str(array.tolist()).split()
        assert any(line[: 1 + len(due)] == [name, *due] for line in lines), (name, due)

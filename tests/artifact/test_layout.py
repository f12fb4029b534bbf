"""Stacked and unrolled parameters hold the same numbers under other names."""

import jax
import numpy as np
import pytest
from small_model import random_params, small_config

from lamae_jax.artifact.layout import stacked, unrolled
from lamae_jax.errors import UserError


@pytest.fixture(scope="module")
def params() -> dict:
    return random_params(small_config(encoder_depth=3, latent_depth=2))


def test_there_and_back_is_the_same(params: dict) -> None:
    jax.tree.map(np.testing.assert_array_equal, stacked(unrolled(params)), params)


def test_unrolled_has_a_block_a_name(params: dict) -> None:
    blocks = unrolled(params)["encoder"]["transformer"]["layers"]
    whole = params["encoder"]["transformer"]["layers"]
    assert list(blocks) == ["0", "1", "2"]
    np.testing.assert_array_equal(blocks["2"]["mlp_in"]["kernel"], whole["mlp_in"]["kernel"][2])
    assert "0" not in params["encoder"]["transformer"]["layers"]  # what went in is as it was


def test_blocks_that_do_not_fit_together_are_refused(params: dict) -> None:
    missing = unrolled(params)
    del missing["decoder"]["transformer"]["layers"]["0"]
    missing["decoder"]["transformer"]["layers"]["7"] = {}
    with pytest.raises(UserError, match="must be called 0 to 0"):
        stacked(missing)
    odd = unrolled(params)
    odd["encoder"]["transformer"]["layers"]["1"].pop("mlp_in")
    with pytest.raises(UserError, match="block 1 holds other arrays than block 0"):
        stacked(odd)

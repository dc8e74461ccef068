from __future__ import annotations

import itertools

from hdgan.training.seeding import derive_seed


def test_keys_of_any_length_give_different_seeds() -> None:
    keys = [key for length in range(1, 5) for key in itertools.product((0, 1, 5), repeat=length)]
    assert len({derive_seed(*key) for key in keys}) == len(keys)

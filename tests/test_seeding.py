from __future__ import annotations

import itertools

import torch

from hdgan.seeding import derive_seed, seeded, seeded_generator


def test_keys_of_any_length_give_different_seeds() -> None:
    keys = [key for length in range(1, 5) for key in itertools.product((0, 1, 5), repeat=length)]
    assert len({derive_seed(*key) for key in keys}) == len(keys)


def test_numbers_repeat_inside_and_go_on_outside() -> None:
    def drawn(*keys: int) -> torch.Tensor:
        with seeded(torch.device("cpu"), *keys):
            return torch.rand(3)

    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = torch.rand(1)
    assert torch.equal(drawn(1, 2), drawn(1, 2))
    assert not torch.equal(drawn(1, 2), drawn(2, 1))
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)


def test_a_generator_draws_what_a_seeded_block_draws() -> None:
    cpu = torch.device("cpu")
    with seeded(cpu, 3, 4):
        expected = torch.randn(100)
    assert torch.equal(torch.randn(100, generator=seeded_generator(cpu, 3, 4)), expected)

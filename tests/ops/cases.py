"""Instance maps that ops must handle, and what the ops should give, in plain loops."""

import torch

BIG = 2**31 + 7


def maps():
    """Name -> [B, H, W] integer ids."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape, high=4):
        return torch.randint(0, high, shape, generator=generator)

    return {
        "odd": random(2, 7, 5),
        "one-pixel": torch.tensor([[[3]]]),
        "one-row": random(1, 1, 9),
        "one-column": random(3, 9, 1),
        "one-instance": torch.full((2, 4, 6), 26001),
        "all-different": torch.arange(2 * 6 * 5).view(2, 6, 5),
        "same-ids-in-both-images": random(1, 4, 4).expand(2, 4, 4),
        "negative": random(2, 5, 4) - 2,
        "beyond-32-bits": random(1, 6, 6) * BIG - BIG,
        "cityscapes-int32": (26000 + random(1, 5, 7)).int(),
        "uint8": random(1, 5, 7, high=256).to(torch.uint8),
        "int16": (random(1, 5, 7) - 32768).to(torch.int16),
        "uint16": (random(1, 5, 7) + 33000).to(torch.uint16),
        "strided": random(2, 8, 10)[:, ::2, 1::3],
        "transposed": random(2, 5, 8).transpose(1, 2),
    }


MAPS = maps()


def brute_force_mean(x, ids):
    """Instance mean of x [B, C, H, W] in float64, pixel by pixel."""
    result = torch.empty(x.shape, dtype=torch.float64)
    values, keys = x.double(), ids.tolist()
    for b in range(x.shape[0]):
        for i in range(x.shape[2]):
            for j in range(x.shape[3]):
                same = [(k, m) for k in range(x.shape[2]) for m in range(x.shape[3]) if keys[b][k][m] == keys[b][i][j]]
                result[b, :, i, j] = torch.stack([values[b, :, k, m] for k, m in same]).mean(0)
    return result

from __future__ import annotations

import itertools

from hdgan.data.streams import Stream, stream_rng


def test_streams_have_nothing_in_common():
    """NumPy takes (5, 1) and (5, 1, 0) for one seed."""
    keys = itertools.product(Stream, range(4), range(4))
    drawn = [stream_rng(stream, seed, key).integers(2**62) for stream, seed, key in keys]
    assert len(set(drawn)) == len(drawn)

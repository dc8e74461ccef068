"""Telling URLs from paths, also after pathlib has dropped a slash."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdgan.config.urls import is_url


@pytest.mark.parametrize(
    "text", ["s3://bucket/set", "gs://b", "https://host:8080/a", "simplecache::s3://b/c", "s3a://b"]
)
def test_urls(text: str) -> None:
    assert is_url(text)
    assert is_url(Path(text))


@pytest.mark.parametrize("text", ["set", "/a/b", "C:/set", "a/b:/c", "hf:owner/name", "::/a", ""])
def test_paths(text: str) -> None:
    assert not is_url(text)
    assert not is_url(Path(text))

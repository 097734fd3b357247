"""Paths of parameters, from the names in the store."""

from __future__ import annotations

import pytest

from results.names import by_path, path_of


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("batch_size", "batch_size"),
        ("adapter/kind", "adapter/kind"),
        ("adapter.lora/rank", "adapter/rank"),
        ("encoding/qqp.cross/head.linear/features", "encoding/qqp/head/features"),
        ("adapter.lora//optimizer/encoder_lr", "optimizer/encoder_lr"),
        ("adapter.lora//optimizer/schedule.linear/warmup", "optimizer/schedule/warmup"),
        ("a.b//c.d//e.f/g", "e/g"),
    ],
)
def test_a_path_names_no_branch(name: str, path: str) -> None:
    assert path_of(name) == path
    assert path_of(path) == path, "a path is its own path"
    assert by_path({name: 3}) == {path: 3}

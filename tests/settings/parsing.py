"""One configuration text, right or with one problem."""

from __future__ import annotations

import pytest

from proxy.errors import ConfigError
from proxy.settings import Settings, parse


def good(text: str) -> Settings:
    return parse(text, "f.toml")


def bad(text: str) -> str:
    """Its problem, of which there is one."""
    with pytest.raises(ConfigError) as caught:
        parse(text, "f.toml")
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]

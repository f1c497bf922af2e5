"""What the routes work with: all that the process which hosts them gives to its HTTP face."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from fastapi import Request

from proxy.control.fleet import Control
from proxy.control.storage import Storage
from proxy.control.tenancy import Tenancy
from proxy.model import ApiToken


@dataclass(frozen=True, slots=True)
class Desk:
    """`tokens` are asked for anew at every request: a reload changes them."""

    control: Control
    tokens: Callable[[], Mapping[str, ApiToken]]
    tenancy: Tenancy
    storage: Storage


def desk(request: Request) -> Desk:
    return cast(Desk, request.app.state.desk)

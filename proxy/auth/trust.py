"""trust: whoever names a known user is that user. cert: the certificate's common name must be the user's."""

from __future__ import annotations

import hmac

from proxy.auth.exchange import Asking, Exchange, Step
from proxy.errors import NotAuthorized
from proxy.wire import encode

_IN = Step(encode.AUTHENTICATION_OK, True)


class Trust(Exchange):
    __slots__ = ()

    def __init__(self, asking: Asking) -> None:
        self.asking = asking
        self.client_key = b""
        self.is_for_all = True

    def start(self) -> Step:
        if not self.asking.known:
            raise NotAuthorized(f'role "{self.asking.user}" does not exist')
        return _IN

    def respond(self, body: bytes) -> Step:
        raise AssertionError("trust asks nothing")


class Cert(Trust):
    __slots__ = ()

    def start(self) -> Step:
        name = self.asking.certificate_name
        if not name or not hmac.compare_digest(name.encode(), self.asking.user.encode()):
            raise NotAuthorized(f'certificate authentication failed for user "{self.asking.user}"')
        return super().start()

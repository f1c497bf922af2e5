"""A way to a server that a test can cut: what is under way stays under way, and nobody is told."""

from __future__ import annotations

import selectors
import socket
import threading


class CuttingRelay:
    """Passes on what comes to `port`, but while it is `cut`."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut = False
        self._pairs: dict[socket.socket, socket.socket] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> CuttingRelay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)
        for sock in [*self._pairs, self._listener]:
            sock.close()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._end.is_set():
                if self.cut:
                    self._end.wait(0.01)
                    continue
                for key, _ in selector.select(0.02):
                    sock = key.fileobj
                    assert isinstance(sock, socket.socket)
                    if sock is self._listener:
                        self._join(selector)
                    elif sock in self._pairs:
                        self._pass_on(selector, sock)

    def _join(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 1)
        except OSError:
            client.close()
            return
        self._pairs[client], self._pairs[server] = server, client
        for sock in (client, server):
            selector.register(sock, selectors.EVENT_READ)

    def _pass_on(self, selector: selectors.BaseSelector, sock: socket.socket) -> None:
        other = self._pairs[sock]
        try:
            data = sock.recv(1 << 16)
            if data:
                other.sendall(data)
        except OSError:
            data = b""
        if not data:
            for each in (sock, other):
                selector.unregister(each)
                self._pairs.pop(each)
                each.close()

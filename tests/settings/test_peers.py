import pytest

from proxy import settings
from proxy.errors import ConfigError


def test_peers_by_their_id() -> None:
    text = '[proxy]\npeer_id = 1\n[peers]\n1 = "one"\n2 = "two:7000"\n255 = "[::1]:1"\n'
    client = settings.parse(text, "t.toml").client
    assert client.peer_id == 1
    assert dict(client.peers) == {1: ("one", 6432), 2: ("two", 7000), 255: ("::1", 1)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[peers]\n1 = "one"\n', "peer_id"),
        ('[proxy]\npeer_id = 1\n[peers]\n256 = "one"\n', "[peers] 256"),
        ('[proxy]\npeer_id = 1\n[peers]\nx = "one"\n', "[peers] x"),
        ("[proxy]\npeer_id = 1\n[peers]\n2 = 6432\n", "[peers] 2"),
        ("[proxy]\npeer_id = 256\n", "peer_id"),
        ("peers = 3\n", "[peers]"),
    ],
)
def test_wrong_peers(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings.parse(text, "t.toml")
    assert said in error.value.message

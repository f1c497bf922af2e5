from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.startup import CancelRequest
from proxy.wire.way import MAX_HOPS, Way, arrived, passed_on, way_of, word

PEERS, NUMBERS = st.integers(0, 255), st.integers(0, 10_000)


@given(PEERS, NUMBERS, st.integers(0, 1 << 40), st.binary(min_size=4, max_size=4))
def test_a_process_id_of_ours_tells_the_way(peer: int, number: int, chance: int, key: bytes) -> None:
    way = Way.to(peer, number)
    pid = word(way, chance)
    assert 1 << 30 <= pid < 1 << 31
    assert way_of(CancelRequest(pid, key)) == way == (peer, number % 256)


@given(PEERS, NUMBERS, st.integers(0, 1 << 14), st.integers(1, 1 << 22))
def test_a_long_secret_tells_it_where_the_process_id_is_the_servers(
    peer: int, number: int, chance: int, pid: int
) -> None:
    way = Way.to(peer, number)
    assert way_of(CancelRequest(pid, word(way, chance).to_bytes(4, "big") + bytes(28))) == way
    assert way_of(CancelRequest(pid, word(way, chance).to_bytes(4, "big"))) is None


@given(st.integers(0, (1 << 32) - 1), st.sampled_from([4, 32]), st.integers(1, MAX_HOPS))
def test_hops_are_told_apart_from_the_secret(pid: int, length: int, hops: int) -> None:
    request = CancelRequest(pid, b"\x01" * length)
    assert arrived(request) == (request, 0)
    assert arrived(passed_on(request, hops)) == (request, hops)


def test_a_secret_with_a_byte_too_many_stays_wrong() -> None:
    for byte in (0, MAX_HOPS + 1, 255):
        request = CancelRequest(1, b"1234" + bytes([byte]))
        assert arrived(request) == (request, 0)

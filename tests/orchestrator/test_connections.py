from __future__ import annotations

import pytest

from services.orchestrator.connections import ConnectionLimits, Connections, Place, most_connections, origin_of


class Line:
    """A connection that only remembers whether it was ended."""

    def __init__(self) -> None:
        self.is_up = True

    def hang_up(self) -> None:
        self.is_up = False


def register(**limits: int) -> Connections:
    return Connections(ConnectionLimits(**limits))


def busy(connections: Connections, address: str = "192.0.2.1") -> tuple[Line, Place]:
    line = Line()
    place = connections.admit(line, address)
    connections.work(line)
    return line, place


def test_beyond_the_bound_there_are_spare_places_and_then_none() -> None:
    connections = register(connections=2, spare=1)
    assert [busy(connections)[1] for _ in range(4)] == [Place.USUAL, Place.USUAL, Place.SPARE, Place.NONE]
    assert len(connections) == 3


def test_the_one_that_has_rested_longest_makes_room() -> None:
    connections = register(connections=2, spare=0)
    first, second, third = Line(), Line(), Line()
    for line in (first, second):
        connections.admit(line, "192.0.2.1")
    connections.work(first)
    connections.rest(first)
    assert connections.admit(third, "192.0.2.1") is Place.USUAL
    assert [line.is_up for line in (first, second, third)] == [True, False, True]


def test_one_with_a_request_in_work_does_not() -> None:
    connections = register(connections=1, spare=0)
    line, _ = busy(connections)
    assert connections.admit(Line(), "192.0.2.1") is Place.NONE
    assert line.is_up


def test_a_closed_connection_leaves_its_place_whoever_says_so_twice() -> None:
    connections = register(connections=1, spare=0)
    line, _ = busy(connections)
    for _ in range(2):
        connections.remove(line)
    assert busy(connections)[1] is Place.USUAL


def test_an_address_has_its_share_and_others_have_theirs() -> None:
    connections = register(connections=10, per_address=2)
    lines = [busy(connections, "192.0.2.1") for _ in range(3)]
    assert [place for _, place in lines] == [Place.USUAL, Place.USUAL, Place.NONE]
    assert busy(connections, "192.0.2.2")[1] is Place.USUAL
    connections.remove(lines[0][0])
    assert busy(connections, "192.0.2.1")[1] is Place.USUAL


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
    ],
)
def test_a_share_belongs_to_an_address_or_a_network_of_64_bits(address: str, origin: str) -> None:
    assert origin_of(address) == origin


@pytest.mark.parametrize(("descriptors", "most"), [(1024, 512), (8192, 4096), (4700, 4096), (256, 64), (2, 1)])
def test_connections_leave_descriptors_for_everything_else(descriptors: int, most: int) -> None:
    assert most_connections(4096, descriptors=descriptors) == most

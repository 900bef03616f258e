import socket
from concurrent.futures import ThreadPoolExecutor

from services.devstack.ports import ReservedPort


def test_a_server_that_names_the_port_gets_it_again_and_again() -> None:
    with ReservedPort() as port:
        for _ in range(2):
            with (
                socket.create_server(("127.0.0.1", port.number)) as server,
                socket.create_connection(("127.0.0.1", port.number)) as client,
            ):
                accepted, _address = server.accept()
                accepted.close()
                assert client.recv(1) == b""


def test_nobody_who_asks_for_a_free_port_is_given_a_reserved_one() -> None:
    with ReservedPort() as port:
        sockets = [socket.socket() for _ in range(500)]
        for free in sockets:
            free.bind(("127.0.0.1", 0))
        numbers = {free.getsockname()[1] for free in sockets}
        for free in sockets:
            free.close()
    assert port.number not in numbers


def test_ports_reserved_side_by_side_differ() -> None:
    with ThreadPoolExecutor(8) as threads:
        ports = list(threads.map(lambda _: ReservedPort(), range(64)))
    assert len({port.number for port in ports}) == 64
    for port in ports:
        port.__exit__(None, None, None)


def test_a_port_is_free_after_the_block() -> None:
    with ReservedPort() as port:
        number = port.number
    with socket.socket() as other:
        other.bind(("127.0.0.1", number))


def test_a_port_may_be_named() -> None:
    with ReservedPort() as free:
        number = free.number
    with ReservedPort(number) as named:
        assert named.number == number

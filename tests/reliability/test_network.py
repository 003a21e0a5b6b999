"""The guard that refuses the network to the whole suite really refuses it."""

from __future__ import annotations

import socket

import pytest


def test_a_far_address_is_refused() -> None:
    with socket.socket() as far, pytest.raises(BaseException, match=r"192\.0\.2\.1") as caught:
        far.connect(("192.0.2.1", 80))  # a documentation address of RFC 5737: nobody is there
    assert not isinstance(caught.value, Exception)  # no "except Exception" swallows it


def test_loopback_is_allowed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as near:
        near.connect(server.getsockname())

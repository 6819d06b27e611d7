"""A WebSocket library of another language on both sides: `websocket.py server PORT`, or `client PORT HOST [CA]`."""

import socket
import ssl
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve

LARGE = 1 << 20


def echo(connection):
    """Sends everything back; `close CODE REASON` closes so."""
    for message in connection:
        if isinstance(message, str) and message.startswith("close "):
            _, code, reason = message.split(" ", 2)
            connection.close(int(code), reason)
            return
        connection.send(message)


def server(port):
    with serve(echo, "127.0.0.1", port, max_size=2 * LARGE) as running:
        running.serve_forever()


def client(port, host, authority=None):
    stream = socket.create_connection(("127.0.0.1", port), timeout=20)
    secure = ssl.create_default_context(cafile=authority) if authority else None
    uri = f"{'wss' if secure else 'ws'}://{host}/talk?room=1"
    with connect(uri, sock=stream, ssl=secure, max_size=2 * LARGE, subprotocols=None) as connection:
        for message in ["word", "żółć", b"\x00\xff" * 500, "", "x" * LARGE, b"y" * LARGE]:
            connection.send(message)
            assert connection.recv(timeout=20) == message
        connection.send(iter(["in ", "three ", "pieces"]))
        assert connection.recv(timeout=20) == "in three pieces"
        for _ in range(100):
            connection.send("many")
        for _ in range(100):
            assert connection.recv(timeout=20) == "many"
        assert connection.ping().wait(20), "no pong"
        connection.send("close 4321 that is all")
        try:
            connection.recv(timeout=20)
            raise AssertionError("it should be closed")
        except ConnectionClosed as closed:
            assert closed.rcvd.code == 4321, closed
            assert closed.rcvd.reason == "that is all", closed
    print(f"{uri}: text, binary, fragments, {LARGE} bytes, ping, close code")


if __name__ == "__main__":
    {"server": server, "client": client}[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])

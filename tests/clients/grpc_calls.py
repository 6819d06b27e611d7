"""A gRPC library of another language on both sides: `grpc_calls.py server PORT`, or `client PORT HOST [CA]`."""

import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "tidegate.test.Calls"
LARGE = 2 << 20
cancelled = threading.Event()


def unary(request, context):
    context.send_initial_metadata([("seen-by", "server")])
    context.set_trailing_metadata([("length", str(len(request))), ("echo-bin", request[:8])])
    return request


def refuse(request, context):
    context.set_trailing_metadata([("hint", "ask later")])
    context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "nothing left: żółć 100 %")


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def total(requests, context):
    return str(sum(int(request) for request in requests)).encode()


def talk(requests, context):
    for request in requests:
        yield request


def hang(request, context):
    cancelled.clear()
    context.add_callback(cancelled.set)
    yield b"begun"
    cancelled.wait(30)


def was_cancelled(request, context):
    return b"yes" if cancelled.wait(20) else b"no"


def server(port):
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
        "Hang": grpc.unary_stream_rpc_method_handler(hang),
        "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
    }
    running = grpc.server(futures.ThreadPoolExecutor(8))
    running.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    assert running.add_insecure_port(f"127.0.0.1:{port}"), "the port is taken"
    running.start()
    running.wait_for_termination()


def client(port, host, authority=None):
    target = f"127.0.0.1:{port}"
    options = [("grpc.max_receive_message_length", 2 * LARGE)]
    if authority:
        with open(authority, "rb") as file:
            secure = grpc.ssl_channel_credentials(file.read())
        options.append(("grpc.ssl_target_name_override", host))
        channel = grpc.secure_channel(target, secure, options)
    else:
        channel = grpc.insecure_channel(target, options + [("grpc.default_authority", host)])
    with channel:
        call = {kind: lambda name, kind=kind: getattr(channel, kind)(f"/{SERVICE}/{name}")
                for kind in ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]}

        reply, rpc = call["unary_unary"]("Unary").with_call(b"small", timeout=20, metadata=[("ask", "1")])
        assert reply == b"small"
        assert ("seen-by", "server") in [tuple(pair) for pair in rpc.initial_metadata()]
        trailers = dict((pair.key, pair.value) for pair in rpc.trailing_metadata())
        assert trailers["length"] == "5" and trailers["echo-bin"] == b"small", trailers
        assert call["unary_unary"]("Unary")(b"z" * LARGE, timeout=20) == b"z" * LARGE

        try:
            call["unary_unary"]("Refuse")(b"", timeout=20)
            raise AssertionError("it should be refused")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
            assert error.details() == "nothing left: żółć 100 %", error
            assert ("hint", "ask later") in [tuple(pair) for pair in error.trailing_metadata()], error
        try:
            call["unary_unary"]("Unknown")(b"", timeout=20)
            raise AssertionError("there is no such method")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

        assert list(call["unary_stream"]("Count")(b"1000", timeout=20)) == [str(n).encode() for n in range(1000)]
        assert call["stream_unary"]("Total")(iter([b"1", b"20", b"300"]), timeout=20) == b"321"

        # Each word is answered before the next is said: nothing in between waits for the whole.
        said, answered = [b"one", b"two", b"three"], threading.Semaphore(1)

        def words():
            for word in said:
                answered.acquire()
                yield word

        heard = []
        for word in call["stream_stream"]("Talk")(words(), timeout=20):
            heard.append(word)
            answered.release()
        assert heard == said, heard

        begun = time.monotonic()
        stream = call["unary_stream"]("Hang")(b"", timeout=1)
        assert next(stream) == b"begun"
        try:
            next(stream)
            raise AssertionError("its deadline should pass")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
            assert time.monotonic() - begun >= 0.9
        assert call["unary_unary"]("WasCancelled")(b"", timeout=30) == b"yes"

        calls = [call["unary_unary"]("Unary").future(str(n).encode(), timeout=20) for n in range(200)]
        assert [reply.result() for reply in calls] == [str(n).encode() for n in range(200)]
    print(f"{'TLS' if authority else 'plain'} {host}: unary, streams both ways, status, trailers, deadline, cancellation")


if __name__ == "__main__":
    {"server": server, "client": client}[sys.argv[1]](int(sys.argv[2]), *sys.argv[3:])

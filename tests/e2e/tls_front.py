# TLS in front of a Redis that speaks none, for the e2e tests: asks every client for a certificate of its authority.
# The files are read for each connection, so that a rotated certificate, and no other, counts from the next one on.
#
#   python tls_front.py /tls valkey     listens on 6379; /tls holds tls.crt, tls.key and ca.crt

import asyncio
import contextlib
import socket
import ssl
import sys

FOLDER, REDIS = sys.argv[1:]


def context() -> ssl.SSLContext:
    fresh = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    fresh.load_cert_chain(f"{FOLDER}/tls.crt", f"{FOLDER}/tls.key")
    fresh.load_verify_locations(f"{FOLDER}/ca.crt")
    fresh.verify_mode = ssl.CERT_REQUIRED
    return fresh


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def serve(accepted: socket.socket) -> None:
    reader = asyncio.StreamReader()
    loop, protocol = asyncio.get_running_loop(), asyncio.StreamReaderProtocol(reader)
    writers: list[asyncio.StreamWriter] = []
    with contextlib.suppress(OSError):
        async with asyncio.timeout(10):
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, accepted, ssl=context())
            writers.append(asyncio.StreamWriter(transport, protocol, reader, loop))
            inner, outer = await asyncio.open_connection(REDIS, 6379)
            writers.append(outer)
        ways = [asyncio.ensure_future(pump(reader, outer)), asyncio.ensure_future(pump(inner, writers[0]))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
    for writer in writers:
        writer.close()
    accepted.close()


async def main() -> None:
    loop, tasks = asyncio.get_running_loop(), set()
    with socket.create_server(("", 6379)) as listener:
        listener.setblocking(False)
        while True:
            accepted, _ = await loop.sock_accept(listener)
            tasks.add(task := loop.create_task(serve(accepted)))
            task.add_done_callback(tasks.discard)


asyncio.run(main())

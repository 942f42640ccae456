"""A server that answers the same to all, to see what the client alone can do.

python benchmarks/serve/nothing.py PORT
"""

from __future__ import annotations

import asyncio
import sys

BODY = b'{"items": [' + b",".join([b'{"item_id": "B00000ABCD", "title": "A title", "score": 0.123456}'] * 10) + b"]}"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


class Nothing(asyncio.Protocol):
    """Answers without reading."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, _: bytes) -> None:
        """Called by asyncio."""
        self.transport.write(ANSWER)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Nothing, "127.0.0.1", port)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

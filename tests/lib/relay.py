"""relay.py LISTEN_HOST HOST PORT: passes TCP connections on to HOST:PORT, each byte after the delay that holds when it
comes. Prints its port; reads delays in milliseconds from standard input, one a line, and ends with it."""
import asyncio
import sys

READ_BYTES = 1 << 16
QUEUE_MAX = 4096


class Delay:
    seconds = 0.0


async def pump(reader, writer, delay):
    """Bytes keep their order: one that came under a longer delay holds up those behind it, as on a wire."""
    queue = asyncio.Queue(QUEUE_MAX)
    loop = asyncio.get_running_loop()

    async def write():
        while True:
            due, data = await queue.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if not data:
                return
            writer.write(data)
            await writer.drain()

    async def read():
        data = b"-"
        while data:
            data = await reader.read(READ_BYTES)
            await queue.put((loop.time() + delay.seconds, data))

    try:
        await asyncio.gather(read(), write())
    except OSError:
        pass
    finally:
        writer.close()


async def main(listen_host, host, port):
    delay = Delay()

    async def serve(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer, delay), pump(far_reader, writer, delay))

    server = await asyncio.start_server(serve, listen_host, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        delay.seconds = float(line) / 1000


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))

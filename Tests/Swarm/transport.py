"""Connections to the broker over TCP, TLS, WebSocket, secure WebSocket and PROXY, each as a stream of MQTT's bytes."""

import asyncio
import base64
import os
import random
import socket
import ssl
import struct

# Seconds for a TLS handshake.
HANDSHAKE = 30
TRANSPORTS = ("tcp", "tls", "ws", "wss", "proxy")


def tls_context():
    """Takes any certificate: it is ours, and who the broker is, is not what is tested."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


CONTEXT = tls_context()


def proxy_header(port):
    """PROXY protocol v2: a TCP connection over IPv4, from an address that is made up."""
    source = socket.inet_aton("10.%d.%d.%d" % (random.randrange(256), random.randrange(256), random.randrange(1, 255)))
    body = source + socket.inet_aton("127.0.0.1") + struct.pack(">HH", random.randrange(1024, 65535), port)
    return b"\r\n\r\n\0\r\nQUIT\n" + bytes([0x21, 0x11]) + struct.pack(">H", len(body)) + body


def frame(data, opcode=2, final=True, masked=True):
    """A WebSocket frame of a client."""
    head = bytes([(128 if final else 0) | opcode])
    bit = 128 if masked else 0
    if len(data) < 126:
        head += bytes([bit | len(data)])
    elif len(data) < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", len(data))
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", len(data))
    if not masked:
        return head + data
    mask = os.urandom(4)
    wide = (mask * (len(data) // 4 + 1))[:len(data)]
    mixed = int.from_bytes(data, "big") ^ int.from_bytes(wide, "big")
    return head + mask + mixed.to_bytes(len(data), "big")


class Link(asyncio.Protocol):
    """One connection. `on_bytes(data)` and `on_end()` are its owner's; both come in the order of the stream."""

    def __init__(self, kind, on_bytes, on_end):
        self.kind, self.on_bytes, self.on_end = kind, on_bytes, on_end
        self.transport = self.sock = None
        self.is_web = kind in ("ws", "wss")
        self.upgraded = None
        self.buffer = bytearray()
        self.ended = False
        self.half_closed = False

    @classmethod
    async def open(cls, kind, ports, on_bytes, on_end, receive_buffer=None):
        """Raises OSError where the broker does not take it."""
        loop = asyncio.get_running_loop()
        link = cls(kind, on_bytes, on_end)
        link.sock = sock = socket.socket()
        try:
            sock.setblocking(False)
            if receive_buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            await loop.sock_connect(sock, ("127.0.0.1", ports[kind]))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if kind == "proxy":
                await loop.sock_sendall(sock, proxy_header(ports[kind]))
            if kind in ("tls", "wss"):
                # Python 3.11 waits for ever for a handshake that a reset has ended.
                await asyncio.wait_for(loop.create_connection(
                    lambda: link, sock=sock, ssl=CONTEXT, server_hostname="localhost", ssl_handshake_timeout=60), HANDSHAKE)
            else:
                await loop.create_connection(lambda: link, sock=sock)
            if link.is_web:
                link.upgraded = loop.create_future()
                key = base64.b64encode(os.urandom(16)).decode()
                link.transport.write((
                    "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
                    % key).encode())
                await asyncio.wait_for(link.upgraded, 60)
        except BaseException:
            sock.close() if link.transport is None else link.transport.abort()
            raise
        return link

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if not self.is_web:
            return self.on_bytes(data)
        self.buffer += data
        if self.upgraded is None or not self.upgraded.done():
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self.buffer[:end])
            del self.buffer[:end + 4]
            if not head.startswith(b"HTTP/1.1 101"):
                self.upgraded.set_exception(OSError("no upgrade: %r" % head[:60]))
                return self.transport.abort()
            self.upgraded.set_result(None)
        self.frames()

    def frames(self):
        while len(self.buffer) >= 2:
            opcode, length, at = self.buffer[0] & 15, self.buffer[1] & 127, 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                if len(self.buffer) < 2 + wide:
                    return
                length, at = int.from_bytes(self.buffer[2:2 + wide], "big"), 2 + wide
            if len(self.buffer) < at + length:
                return
            data = bytes(self.buffer[at:at + length])
            del self.buffer[:at + length]
            if opcode == 9:
                self.raw(frame(data, 10))
            elif opcode == 8:
                self.raw(frame(data[:2], 8))
            elif opcode != 10:
                self.on_bytes(data)

    def eof_received(self):
        return False

    def connection_lost(self, error):
        self.ended = True
        if self.upgraded is not None and not self.upgraded.done():
            self.upgraded.set_exception(OSError("closed before the upgrade"))
        self.on_end()

    def raw(self, data):
        if not self.ended and not self.half_closed and not self.transport.is_closing():
            self.transport.write(data)

    def send(self, data):
        """WebSocket frames need not be packets: long ones are cut in two."""
        if not self.is_web:
            return self.raw(data)
        if len(data) > 200:
            self.raw(frame(data[:97], final=False) + frame(data[97:], opcode=0))
        else:
            self.raw(frame(data))

    def finish(self):
        """Closes once all is written."""
        if not self.ended:
            self.transport.close()

    def half_close(self):
        """Sends no more, and goes on reading; over TLS there is no such thing."""
        if not self.ended and not self.half_closed:
            if self.transport.can_write_eof():
                self.half_closed = True
                try:
                    self.transport.write_eof()
                except OSError:
                    # The peer was quicker.
                    self.transport.abort()
            else:
                self.transport.close()

    def reset(self):
        """The peer gets RST, and what is on the way is lost."""
        if not self.ended and not self.transport.is_closing():
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def pause(self):
        if not self.ended and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self):
        if not self.ended and not self.transport.is_closing():
            self.transport.resume_reading()

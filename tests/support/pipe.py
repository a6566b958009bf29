"""The writing side of a connection, for sockets without one.
A kernel that takes so much, and a transport that keeps the rest."""


class Pipe:
    """Stands in for both `raw` and `transport` of an imserver's socket, and keeps what is written, in order.

    `room` is how many bytes the kernel takes before it is full, `taken` how many it took; `unsent` waits in the
    transport until `flush`.
    """

    def __init__(self, room: int = 1 << 40) -> None:
        self.room = room
        self.taken = self.unsent = 0
        self.out: list[bytes] = []
        self.ended = False

    def send(self, data: bytes) -> int:
        """As a socket that does not block."""
        assert not self.unsent, "sent past what the transport holds"
        sent = min(self.room, len(data))
        if not sent:
            raise BlockingIOError
        self._keep(data[:sent])
        self.room -= sent
        self.taken += sent
        return sent

    def write(self, data: bytes) -> None:
        """As a transport that the kernel takes nothing from."""
        self._keep(data)
        self.unsent += len(data)

    def _keep(self, data: bytes) -> None:
        assert not self.ended, "written after the end"
        self.out.append(data)

    def flush(self, room: int = 1 << 40) -> None:
        """The kernel takes what waits, and so much more."""
        self.taken, self.unsent, self.room = self.taken + self.unsent, 0, room

    def get_write_buffer_size(self) -> int:
        """What the kernel has not taken."""
        return self.unsent

    def write_eof(self) -> None:
        """Nothing may follow."""
        self.ended = True

    def is_closing(self) -> bool:
        """It never closes by itself."""
        return False

    @property
    def text(self) -> bytes:
        """All that was written."""
        return b"".join(self.out)

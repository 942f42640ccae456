"""What an operator may set."""

from __future__ import annotations

from dataclasses import dataclass

from l2d.errors import ConfigError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Names under which a machine reaches itself alone."""


@dataclass(frozen=True)
class Settings:
    """How requests are taken, batched and refused.

    Args:
        host: address to listen at.
        port: port to listen at; 0 takes a free one.
        decoder: what answers where a request names none; None for the run's usual one.
        read_only: whether writes are refused; the writer's lock is then left to another process, whose writes are
            followed.
        language: whether `beam` answers, one request at a time.
        deadline_ms: milliseconds that a request may take where it does not say otherwise.
        queue: most requests that wait, per run.
        max_batch: most requests that are thought together.
        max_tokens: most prompt tokens that are thought together.
        max_wait_ms: milliseconds that a request waits for company.
        drain_seconds: most seconds between the signal to stop and the end.
        threads: torch's, per run; None as torch has them.
        quiet: whether the access log is left out.
        body_bytes: longest body.
        header_bytes: longest head of a request.
        read_seconds: most seconds that a head or a body may take to arrive, and a client to go on reading.
        connections: most open ones.
        writes: most writes that wait, per run.
        poll_seconds: how often a read-only server looks for what another process wrote.

    Raises:
        ConfigError: a value that cannot work.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    decoder: str | None = None
    read_only: bool = False
    language: bool = True
    deadline_ms: int = 1000
    queue: int = 1024
    max_batch: int = 64
    max_tokens: int = 16_384
    max_wait_ms: float = 2.0
    drain_seconds: float = 30.0
    threads: int | None = None
    quiet: bool = False
    body_bytes: int = 1 << 20
    header_bytes: int = 1 << 16
    read_seconds: float = 10.0
    connections: int = 2048
    writes: int = 256
    poll_seconds: float = 1.0

    def __post_init__(self) -> None:
        whole = ("deadline_ms", "queue", "max_batch", "max_tokens", "body_bytes", "connections", "writes")
        for name in whole:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is too small", got=getattr(self, name), expected="at least 1")
        if self.max_wait_ms < 0 or self.drain_seconds < 0:
            raise ConfigError(
                "a time is negative", got=min(self.max_wait_ms, self.drain_seconds), expected="at least 0"
            )
        if not 0 <= self.port < 1 << 16:
            raise ConfigError("not a port", got=self.port, expected="0 to 65535")

    @property
    def loopback(self) -> bool:
        """Whether nobody but this machine can reach the address."""
        return self.host in LOOPBACK

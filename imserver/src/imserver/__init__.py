"""The WebSocket server of ImCluster: one asyncio process that holds sockets and nothing else.

Everything it shares with senders (keys, slots, scripts, log entries) comes from imhelper.
"""

__version__ = "0.1.0"

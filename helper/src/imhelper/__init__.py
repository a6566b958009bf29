"""The SDK of ImCluster: business services send to and look after WebSocket clients through it.

It speaks to Redis only; no other service is needed.
"""

__version__ = "0.1.0"

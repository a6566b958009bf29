"""socket.io as a peer: package.json names its version, server.js is the server, peer.py runs it.

It runs in Node; the lock file names no registry, so that it installs from whichever the machine uses.
"""

"""Centrifugo as a peer: go.mod names its version, build.py builds it, peer.py runs it, sender.py talks to its API.

It runs as a program of its own; nothing of it is imported here.
"""

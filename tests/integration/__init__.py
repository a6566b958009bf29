"""Tests against real processes: Valkey or Redis, imservers, wheels in fresh environments."""

"""Tests of pure functions and of the repository itself: no process, no socket."""

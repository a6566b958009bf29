"""The test suite: unit, integration and browser tests, and in support/ what they share."""

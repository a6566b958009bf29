"""The chaos runner: real processes, seeded faults, and a model of what every client must have received."""

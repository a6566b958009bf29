"""The operator of ImCluster: watches ImCluster resources and keeps the cluster as they say.
What decides is pure and has no await; kopf, lightkube and Redis are at the edge."""

__version__ = "0.1.0"

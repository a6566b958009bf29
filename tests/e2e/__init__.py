"""End-to-end tests on a real Kubernetes, with clients connected."""

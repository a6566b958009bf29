"""Tests of the charts: rendered manifests, and what a real API server and Helm make of them."""

"""Measures imserver and imhelper against floors taken in the same run; `python -m bench --help` tells how.

Nothing here is imported by the product, and nothing here asserts a time: continuous integration only checks counts.
"""

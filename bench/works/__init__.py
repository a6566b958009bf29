"""The works: what is measured, one module each, every one an async function from options to rows.

A work starts its own cluster, checks that every frame arrived, and measures ours and the floor in turn.
"""

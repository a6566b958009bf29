"""`python -m bench`: the entry point and nothing else.

The command line itself is in run.py.
"""

from bench.run import main

if __name__ == "__main__":
    raise SystemExit(main())

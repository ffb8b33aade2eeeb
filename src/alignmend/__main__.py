"""`python -m alignmend` is the command `alignmend`."""

from alignmend.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

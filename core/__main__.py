"""``python -m weighbridge``: the command without its script."""

from weighbridge.cli import main

if __name__ == "__main__":
    main()

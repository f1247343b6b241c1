"""`python -m dyhead_det`, also under torchrun."""

from dyhead_det.cli.app import main

if __name__ == "__main__":
    main()

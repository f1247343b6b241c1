"""`dyhead-det` and `python -m dyhead_det`, also under torchrun."""

from dyhead_det.cli.interrupts import leave_at_once_on_ctrl_c


def main() -> None:
    """Heed Ctrl-C before anything else is imported, then run the program."""
    leave_at_once_on_ctrl_c()
    from dyhead_det.cli.app import main as run  # noqa: PLC0415 - see above

    run()


if __name__ == "__main__":
    main()

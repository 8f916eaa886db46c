"""`python -m mainspring`, and so `torchrun -m mainspring`."""

from mainspring.cli import main

if __name__ == "__main__":
    main()

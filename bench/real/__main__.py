"""``python -m bench.real``: see ``pair``, whose functions run in processes of their own."""

from bench.real.pair import main

if __name__ == "__main__":
    main()

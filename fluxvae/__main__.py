"""``python -m fluxvae`` is the same as ``fluxvae``."""

from fluxvae.cli import main

if __name__ == "__main__":
    main()

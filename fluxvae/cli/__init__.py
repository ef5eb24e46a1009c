"""The command line: parse, call one stage, print. Nothing heavy is imported at module level.

Results go to stdout (one JSON object with ``--json``), progress and notes to stderr.
Exit codes: 0 ok, 1 error, 2 usage, 3 validation failed.
"""

from fluxvae.cli.main import main as main

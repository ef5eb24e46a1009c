"""One function per MIL operation, by family. Importing this package fills the registry.

Semantics follow the operation's documentation in coremltools
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html).
Where that leaves a value open (which neighbour a fractional nearest upsampling takes, a division
of two integers), the operation refuses with UnsupportedOpError rather than guess.
"""

from fluxvae.mil.ops import constexpr as constexpr
from fluxvae.mil.ops import conv as conv
from fluxvae.mil.ops import elementwise as elementwise
from fluxvae.mil.ops import pool as pool
from fluxvae.mil.ops import recurrent as recurrent
from fluxvae.mil.ops import reduce as reduce
from fluxvae.mil.ops import resize as resize
from fluxvae.mil.ops import shape as shape

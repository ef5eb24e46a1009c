"""The table of cases: every operation of the executor has at least one."""

from tests.mil.case import Case
from tests.mil.cases_common import COMMON
from tests.mil.cases_layout import LAYOUT
from tests.mil.cases_math import MATH
from tests.mil.cases_nn import NN
from tests.mil.cases_pool import POOL
from tests.mil.cases_recurrent import RECURRENT
from tests.mil.cases_weights import WEIGHTS

CASES: tuple[Case, ...] = (*MATH, *NN, *POOL, *RECURRENT, *COMMON, *LAYOUT, *WEIGHTS)

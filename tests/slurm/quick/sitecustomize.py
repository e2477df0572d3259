"""Python runs this first in every process of a test on SLURM: Snakemake looks at the queue every two seconds.

Its SLURM plugin waits ten seconds longer after each look that found no job ended, which cannot be configured; jobs of
tests take seconds. When it looks is all that changes: how it asks and what it makes of the answer stays.
"""

import sys

if "snakemake" in sys.orig_argv:
    from snakemake_executor_plugin_slurm import Executor

    Executor.next_seconds_between_status_checks = property(lambda self: 2.0, lambda self, seconds: None)
